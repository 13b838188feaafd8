"""Commands of gan-image: translation, sheets of samples, interpolations, training animations, and image comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gan_core.cli import MODEL_HELP, Answer, Commands, Out, Part, Seed, asked_of, made
from gan_core.errors import InputError

if TYPE_CHECKING:
    from gan_core.jobs import Outcome

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
OutFile = Annotated[Path, typer.Option(dir_okay=False, help="Output .png file.")]


def translate(
    context: typer.Context,
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="IN…", help="Image files, folders, or - for standard input.")],
    out: Out = None,
    result: Annotated[
        str | None, typer.Option(metavar="NAME", help="Result of the model, such as to_source (default: the first).")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=16, metavar="N", help="Maximum side of a tile in pixels (default: 512 or more).")
    ] = None,
    shard: Part = None,
) -> Answer | None:
    """Translates images with a model such as pix2pix.

    Writes PNG files of the same size. Additional options set the model's conditions other than the image, such as
    --label NAME|INDEX.
    """
    from gan_image.api import load
    from gan_image.pipeline import translate as work

    def translated(place: str) -> Outcome:
        game = load(model)
        given = asked_of(game, context, 1)
        return work(game, inputs, place, result=result, tile=tile, shard=shard, **given)

    return made(out, translated)


def sheet(
    context: typer.Context,
    model: Model,
    count: Annotated[int, typer.Option("-n", min=1, max=4096, help="Number of samples.")] = 64,
    out: OutFile = Path("samples.png"),
    columns: Annotated[int | None, typer.Option(min=1, help="Columns (default: one per class, or square).")] = None,
    seed: Seed = 0,
) -> Answer:
    """Generates samples and writes them to a single image.

    Class-conditional models have one column per class. Additional options set the model's conditions and parameters,
    as in `generate`.
    """
    from gan_image.api import load
    from gan_image.media import write_samples

    stem, game = _png(out), load(model)
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
    steps: Annotated[int, typer.Option(min=2, max=256, help="Number of images per strip.")] = 10,
    out: OutFile = Path("interpolation.png"),
    seed: Seed = 0,
) -> Answer:
    """Writes strips of images that interpolate between two latents.

    Additional options set the model's conditions, such as --label NAME|INDEX (default: all classes in turn, one per
    strip), and --truncation PSI. If a condition is repeated, its values are assigned to the strips in turn.
    """
    from gan_core.play.interpolation import interpolate as work
    from gan_image.api import load
    from gan_image.media import write_samples

    stem, game = _png(out), load(model)
    given = asked_of(game, context, rows, game.latent, game.render)
    images = work(game, rows=rows, steps=steps, seed=seed, **given)
    path = write_samples({"generated": images.flatten(0, 1)}, stem, columns=steps)
    return Answer({"file": str(path), "seed": seed}, str(path))


def film(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Output .gif file.")] = Path("training.gif"),
    milliseconds: Annotated[int, typer.Option(min=20, max=10_000, help="Duration of a frame in ms.")] = 200,
) -> Answer:
    """Writes the sample images of a run as an animated GIF."""
    from gan_core.media.pictures import write_gif
    from gan_core.runs.run import Run

    pictures = [path for path in Run.open(run).samples() if path.suffix == ".png"]
    if not pictures:
        raise InputError(f"{run}: has no sample pictures; train with `--set train.sample_every=100`")
    if out.suffix != ".gif":
        raise InputError(f"`--out` is {out}; expected a .gif file")
    path = write_gif(pictures, out, milliseconds=milliseconds)
    return Answer({"file": str(path), "pictures": len(pictures)}, str(path))


def compare(
    a: Annotated[Path, typer.Argument(help="Image file, folder or archive.")],
    b: Annotated[Path, typer.Argument(help="Image file, folder or archive, matched by file name.")],
    metrics: Annotated[str, typer.Option(metavar="A,B", help="Metrics: psnr, ssim, ms_ssim, lpips.")] = "psnr,ssim",
    weights: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Weights of LPIPS: heads and backbone; repeatable.")
    ] = None,
) -> Answer:
    """Computes the similarity of two images or two folders."""
    from gan_core.tables import table
    from gan_image.similarity import compare as measure

    found = measure(a, b, measures=[name.strip() for name in metrics.split(",")], weights=weights or ())

    document = {"mean": found.means(), "pairs": found.figures, "protocol": found.protocol}
    rows = [
        (name, f"{mean:.6g}", f"mean of {len(found.figures[name])}: {found.protocol[name]}")
        for name, mean in found.means().items()
    ]
    return Answer(document, table(rows))


def _png(out: Path) -> Path:
    """Returns the path without its suffix, which the writer adds."""
    if out.suffix not in ("", ".png"):
        raise InputError(f"`--out` is {out}; expected a .png file")
    return out.with_suffix("")


COMMANDS: Commands = {
    "translate": translate,
    "sheet": sheet,
    "interpolate": interpolate,
    "film": film,
    "compare": compare,
}
