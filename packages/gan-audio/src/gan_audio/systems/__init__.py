"""The systems of gan-audio: its table of contents. Networks, games and presets load when a system is used."""

from gan_core.cards import Card

CARDS = (
    Card(
        "wavegan",
        "WaveGAN: waveforms, with phase shuffle",
        2019,
        "generation",
        "arXiv:1802.04208",
        "gan_audio.systems.wavegan",
        "drums",
    ),
    Card(
        "specgan",
        "SpecGAN: log spectrograms made like images",
        2019,
        "generation",
        "arXiv:1802.04208",
        "gan_audio.systems.specgan",
        "drums",
    ),
    Card(
        "melspec",
        "Mels made like images, for a vocoder",
        2019,
        "generation",
        "arXiv:1802.04208",
        "gan_audio.systems.melspec",
        "drums",
    ),
    Card(
        "melgan",
        "MelGAN: audio from mels, judged at several scales",
        2019,
        "vocoding",
        "arXiv:1910.06711",
        "gan_audio.systems.melgan",
        "drums",
    ),
    Card(
        "hifigan",
        "HiFi-GAN: audio from mels, judged by period and scale",
        2020,
        "vocoding",
        "arXiv:2010.05646",
        "gan_audio.systems.hifigan",
        "drums",
    ),
    Card(
        "bigvgan",
        "BigVGAN: periodic activations that do not alias",
        2023,
        "vocoding",
        "arXiv:2206.04658",
        "gan_audio.systems.bigvgan",
        "drums",
    ),
    Card(
        "midinet",
        "MidiNet: melodies bar by bar, told the chord and the bar before",
        2017,
        "generation",
        "arXiv:1703.10847",
        "gan_audio.systems.midinet",
        "tunes",
    ),
)
