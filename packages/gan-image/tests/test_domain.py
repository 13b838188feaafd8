from gan_core.testing import check_domain
from gan_image import DOMAIN

SYSTEMS = (
    "gan cgan dcgan infogan unrolled-gan ebgan wgan lsgan began pix2pix cyclegan dragan wgan-gp sngan "
    "cgan-pd progan pacgan sagan ssgan infomax-gan"
)


def test_domain():
    check_domain(DOMAIN, SYSTEMS.split())
