"""gan-image's own commands: translation, sheets, interpolations, the film of a training, and comparing images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gan_core.cli import MODEL_HELP, Answer, Out, Part, Seed, asked_of, made
from gan_core.errors import InputError

if TYPE_CHECKING:
    from gan_core.jobs import Outcome

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
OutFile = Annotated[Path, typer.Option(dir_okay=False, help="The picture, a .png.")]


def translate(
    context: typer.Context,
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="IN…", help="Image files, folders of them, or -.")],
    out: Out = None,
    result: Annotated[
        str | None, typer.Option(metavar="NAME", help="Result of the model, such as to_source (default: its first).")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=16, metavar="N", help="Maximum side of a tile (default: 512 pixels, or more).")
    ] = None,
    shard: Part = None,
) -> Answer | None:
    """Turns images into images by a model such as pix2pix or CycleGAN: PNG files of the size of the originals.

    Further options are the conditions of the model other than the image, such as --label NAME|K.
    """
    from gan_image import DOMAIN
    from gan_image.pipeline import translate as work

    def translated(place: str) -> Outcome:
        game = DOMAIN.load(model)
        given = asked_of(game, context, 1)
        return work(game, inputs, place, result=result, tile=tile, shard=shard, **given)

    return made(out, translated)


def sheet(
    context: typer.Context,
    model: Model,
    count: Annotated[int, typer.Option("-n", min=1, max=4096, help="How many samples.")] = 64,
    out: OutFile = Path("samples.png"),
    columns: Annotated[int | None, typer.Option(min=1, help="Left out: one a class, else as many as rows.")] = None,
    seed: Seed = 0,
) -> Answer:
    """One picture of many samples; of a class-conditional system, a column a class.

    Further options are the model's conditions and parameters, as `generate` takes them.
    """
    from gan_image import DOMAIN
    from gan_image.media import write_samples

    stem, game = _png(out), DOMAIN.load(model)
    given = asked_of(game, context, count, game.sample)
    by_class = "label" not in given
    columns = columns or (game.num_classes if by_class else None)
    samples = {"generated": game.generate(count, seed=seed, **given)}
    path = write_samples(samples, stem, columns=columns, game=game if by_class else None)
    return Answer({"file": str(path), "seed": seed}, str(path))


def interpolate(
    context: typer.Context,
    model: Model,
    rows: Annotated[int, typer.Option(min=1, max=256, help="Number of strips.")] = 8,
    steps: Annotated[int, typer.Option(min=2, max=256, help="Images in a strip.")] = 10,
    out: OutFile = Path("interpolation.png"),
    seed: Seed = 0,
) -> Answer:
    """Strips of images from one latent to another, as the model draws them.

    Further options are the model's conditions, such as --label NAME|K (default: all classes in turn, one for each
    strip), and --truncation PSI. A condition given several times is used in turn.
    """
    from gan_core.interpolation import interpolate as work
    from gan_image import DOMAIN
    from gan_image.media import write_samples

    stem, game = _png(out), DOMAIN.load(model)
    given = asked_of(game, context, rows, game.latent, game.render)
    images = work(game, rows=rows, steps=steps, seed=seed, **given)
    path = write_samples({"generated": images.flatten(0, 1)}, stem, columns=steps)
    return Answer({"file": str(path), "seed": seed}, str(path))


def film(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The animation, a .gif.")] = Path("training.gif"),
    milliseconds: Annotated[int, typer.Option(min=20, max=10_000, help="That each picture is shown.")] = 200,
) -> Answer:
    """The pictures that a training wrote, one after the other, as a GIF."""
    from gan_core.run import Run
    from gan_image.media import write_gif

    pictures = [path for path in Run.open(run).samples() if path.suffix == ".png"]
    if not pictures:
        raise InputError(f"{run}: has no sample pictures; train with `--set train.sample_every=100`")
    if out.suffix != ".gif":
        raise InputError(f"`--out` is {out}; the animation is a .gif")
    path = write_gif(pictures, out, milliseconds=milliseconds)
    return Answer({"file": str(path), "pictures": len(pictures)}, str(path))


def compare(
    a: Annotated[Path, typer.Argument(help="An image file, or a folder or archive of them.")],
    b: Annotated[Path, typer.Argument(help="The same; images of one name are a pair.")],
    metrics: Annotated[str, typer.Option(metavar="A,B", help="psnr, ssim, ms_ssim, lpips.")] = "psnr,ssim",
    weights: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="LPIPS's heads, and its backbone; may be given twice.")
    ] = None,
) -> Answer:
    """Measures how alike two images are, or two folders of images pair by pair."""
    from gan_core.cli import table
    from gan_image.similarity import compare as measure

    found = measure(a, b, measures=[name.strip() for name in metrics.split(",")], weights=weights or ())

    document = {"mean": found.means(), "pairs": found.figures, "protocol": found.protocol}
    rows = [(name, f"{mean:.6g}", f"mean of {len(found.figures[name])}: {found.protocol[name]}")
            for name, mean in found.means().items()]  # fmt: skip
    return Answer(document, table(rows))


def _png(out: Path) -> Path:
    """The path without the suffix that the writer adds."""
    if out.suffix not in ("", ".png"):
        raise InputError(f"`--out` is {out}; the picture is a .png")
    return out.with_suffix("")


COMMANDS = {"translate": translate, "sheet": sheet, "interpolate": interpolate, "film": film, "compare": compare}
