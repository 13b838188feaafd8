"""The systems of gan-audio. Networks, games and presets are imported when a system is used."""

from gan_core.cards import Card

CARDS = (
    Card(
        name="wavegan",
        title="WaveGAN, raw waveforms",
        year=2019,
        task="generation",
        paper="arXiv:1802.04208",
        module="gan_audio.systems.wavegan",
        data="drums",
    ),
    Card(
        name="specgan",
        title="SpecGAN, log spectrograms",
        year=2019,
        task="generation",
        paper="arXiv:1802.04208",
        module="gan_audio.systems.specgan",
        data="drums",
    ),
    Card(
        name="melspec",
        title="Mel spectrograms for vocoders",
        year=2019,
        task="generation",
        paper="arXiv:1802.04208",
        module="gan_audio.systems.melspec",
        data="drums",
    ),
    Card(
        name="melgan",
        title="MelGAN vocoder",
        year=2019,
        task="vocoding",
        paper="arXiv:1910.06711",
        module="gan_audio.systems.melgan",
        data="drums",
    ),
    Card(
        name="hifigan",
        title="HiFi-GAN vocoder",
        year=2020,
        task="vocoding",
        paper="arXiv:2010.05646",
        module="gan_audio.systems.hifigan",
        data="drums",
    ),
    Card(
        name="bigvgan",
        title="BigVGAN vocoder",
        year=2023,
        task="vocoding",
        paper="arXiv:2206.04658",
        module="gan_audio.systems.bigvgan",
        data="drums",
    ),
    Card(
        name="midinet",
        title="MidiNet, melodies by bar",
        year=2017,
        task="generation",
        paper="arXiv:1703.10847",
        module="gan_audio.systems.midinet",
        data="tunes",
    ),
)
