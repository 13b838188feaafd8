"""Resynthesis of held-out LJ Speech clips by small vocoders, compared with Griffin-Lim from the same mels.

MelGAN and HiFi-GAN, presets `small`, are trained on the clips LJ001-0001 to 0020 (2.3 minutes of one speaker).
LJ001-0021 to 0024 are held out. The averaged weights are measured at intervals: mel-cepstral distortion in dB,
multi-resolution STFT distance and log-spectral distance in dB (`gan_audio.measure.distances`), means over the clips.
`one clip` is trained and measured on LJ001-0002 only, and shows how well the network can fit. Griffin-Lim converts the
same mels to magnitudes by non-negative least squares and runs 60 iterations with momentum 0.99 (librosa). One seed. The
picture has the first held-out clip: the recording, Griffin-Lim, and each vocoder after the last stage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, cast

import librosa
import torch
from _record import RESULTS, Progress, record
from _tables import markdown
from torch import Tensor

import gan_audio
from gan_audio.measure.distances import log_spectral_distance, mel_cepstral_distortion, multi_resolution_stft_distance
from gan_audio.media import write_samples
from gan_audio.mel.contract import MelContract, MelSpectrogram, filterbank
from gan_audio.sound.files import read_sound
from gan_audio.systems.vocoder import Vocoder
from gan_core.api import resume
from gan_core.data.files import open_files

SYSTEMS = ("melgan", "hifigan")
RATE = 22_050
TRAINED, KEPT_BACK, ONE = range(1, 21), range(21, 25), (2,)
STAGES = (250, 500, 1000, 2000)
"""Steps after which the vocoders are measured."""
STAGES_OF_ONE = (500, 1500)
"""Steps after which the vocoders that are trained on one clip are measured."""
ITERATIONS = 60
"""Number of iterations of Griffin-Lim."""


def clips(folder: Path, numbers: Sequence[int]) -> list[Tensor]:
    """Reads recordings `[1, 1, T]` at their own sample rate, cut to a multiple of 256 samples."""
    files = open_files(folder)
    sounds = [read_sound(files, f"LJ001-{number:04d}.flac")[None] for number in numbers]
    return [sound[..., : sound.shape[-1] // 256 * 256] for sound in sounds]


def griffin_lim(audio: Tensor, contract: MelContract) -> Tensor:
    """Resynthesizes audio `[1, 1, T]` from its mel by Griffin-Lim."""
    mel = MelSpectrogram(contract)(audio)[0]
    magnitudes = librosa.util.nnls(filterbank(contract).numpy(), contract.logarithm(mel).exp().numpy())
    sound = librosa.griffinlim(
        magnitudes,
        n_iter=ITERATIONS,
        hop_length=contract.hop,
        win_length=contract.window,
        n_fft=contract.fft_size,
        center=False,
        random_state=0,
        length=None,
    )[contract.edge :]
    return torch.from_numpy(sound[: audio.shape[-1]])[None, None].float()


def distances(sounds: Sequence[Tensor], make: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Returns the mean distances between recordings and their resynthesis."""
    pairs = []
    for sound in sounds:
        made = make(sound)
        length = min(sound.shape[-1], made.shape[-1])
        pairs.append((sound[..., :length], made[..., :length]))
    return {
        "mcd": round(mean(mel_cepstral_distortion(a, b, sample_rate=RATE) for a, b in pairs), 3),
        "stft": round(mean(multi_resolution_stft_distance(a, b) for a, b in pairs), 3),
        "lsd": round(mean(log_spectral_distance(a, b, sample_rate=RATE) for a, b in pairs), 3),
    }


def vocoder(path: Path) -> Vocoder:
    """Loads the vocoder of a run or model folder."""
    return cast(Vocoder, gan_audio.load(path))


def measure(
    system: str, data: Path, trained: Sequence[int], measured: Sequence[int], stages: Sequence[int], kept: Path
) -> dict[str, Any]:
    """Trains a vocoder, measures it at each stage, and copies its model to `kept`."""
    sounds = clips(data, measured)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen, run = Path(folder) / "clips", Path(folder) / "run"
        chosen.mkdir()
        for number in trained:
            shutil.copy(data / f"LJ001-{number:04d}.flac", chosen)
        for stage in stages:
            if stage == stages[0]:
                changes = {"train.sample_every": None, "train.checkpoint_every": 1_000_000}
                gan_audio.train(system, data=chosen, out=run, steps=stage, changes=changes, shown=False)
            else:
                resume(run, steps=stage, shown=False)
            found[str(stage)] = distances(sounds, cast(Vocoder, gan_audio.load(run)).resynthesize)
            print(system, len(trained), stage, found[str(stage)], flush=True)
        shutil.copytree(run / "model", kept, dirs_exist_ok=True)
    return found


def table(figures: Mapping[str, Any]) -> str:
    """Formats the table of the results page."""
    rows = []
    for system in SYSTEMS:
        found = figures[system]
        for kind, where in (("kept_back", "clips kept back"), ("one_clip", "the one clip trained on")):
            baseline = found[f"griffin_lim_{kind}"]
            rows.append([f"{system}, {where}: Griffin-Lim", "", *(f"{baseline[key]:.2f}" for key in baseline)])
            rows += [
                [f"{system}, {where}", f"{int(stage):,}", *(f"{each[key]:.2f}" for key in each)]
                for stage, each in found[kind].items()
            ]
    return markdown(["", "rounds", "MCD, dB", "STFT distance", "log-spectral distance, dB"], rows)


def main() -> None:
    """Trains and measures both vocoders, and records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--progress", type=Path, help="file that keeps results, to continue an interrupted benchmark")
    parser.add_argument("--models", type=Path, help="folder for the trained models", required=True)
    parser.add_argument("--only", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    options = parser.parse_args()
    data = Path(os.environ["GAN_TEST_DATA"]) / "ljspeech_clips"
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; set GAN_TEST_DATA to where ljspeech_clips/LJ001-0001.flac is")
    torch.set_num_threads(1)
    progress = Progress(options.progress)
    figures: dict[str, Any] = {}
    shown = {"recording": clips(data, KEPT_BACK)[0]}
    for system in options.only:
        contract = cast(Vocoder, gan_audio.create(system)).contract
        found: dict[str, Any] = {}
        for kind, trained, measured, stages in (
            ("one_clip", ONE, ONE, STAGES_OF_ONE),
            ("kept_back", TRAINED, KEPT_BACK, STAGES),
        ):
            model = options.models / f"{system}-{kind}"
            baseline = partial(distances, clips(data, measured), partial(griffin_lim, contract=contract))
            found[f"griffin_lim_{kind}"] = progress.take(f"{system}, {kind}, griffin-lim", baseline)
            run = partial(measure, system, data, trained, measured, stages, model)
            found[kind] = progress.take(f"{system}, {kind}", run)
        figures[system] = found
        shown |= {
            f"Griffin-Lim, {system}'s mel": griffin_lim(shown["recording"], contract),
            system: vocoder(options.models / f"{system}-kept_back").resynthesize(shown["recording"]),
        }
    if options.only == list(SYSTEMS):
        length = min(sound.shape[-1] for sound in shown.values())
        write_samples(
            {name: sound[..., :length] for name, sound in shown.items()},
            RESULTS / "resynthesis",
            game=gan_audio.load(options.models / "hifigan-kept_back"),
        )
        (RESULTS / "resynthesis.wav").unlink()  # contains the recording
        record("resynthesis", figures, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
