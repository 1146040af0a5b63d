"""Rewriting commands of `codedance data`: what each makes of its files, between the command line and the jobs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.data.checking import progress_line
from codedance_verl.datasets import mix as mixing
from codedance_verl.datasets.convert import ConvertJob, Matches, match_images, matching
from codedance_verl.datasets.converter import Converter, Form, find_form
from codedance_verl.datasets.converters import CONVERTERS
from codedance_verl.datasets.converters.counting import DIGEST
from codedance_verl.datasets.parts import Job, Tally, join_parts, parts_folder, write_parts
from codedance_verl.datasets.pieces import Piece, giant_groups, pieces_of
from codedance_verl.datasets.select import TRAIN, VAL, SampleJob, SplitJob, Target, kind_of, sample_counts, shared_stems
from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import write_atomically


@dataclass(frozen=True)
class Options:
    """What the rewriting commands have in common.

    Attributes:
        out: file or folder that is made.
        images: folder of the image store; None for `images` beside the output.
        workers: processes.
        skip_bad: whether bad rows are left out and listed.
    """

    out: Path
    images: Path | None = None
    workers: int = 1
    skip_bad: bool = False


def convert(
    files: Sequence[Path],
    options: Options,
    source: str = "",
    image_folder: Path | None = None,
    format: str = "",
    any_path: bool = False,
) -> Tally:
    """Converts files of one published set into one file of records.

    Args:
        files: in the order of the output.
        source: name of the converter; empty to find it by the columns.
        image_folder: folder of images that rows name by SHA-256, or by paths that lead out of the file's folder.
        format: turn format whose instructions are written as system message; empty to leave it to the environment.
        any_path: whether paths of images may lead anywhere.

    Raises:
        UserError: the columns differ from those of the set (all differences are named), a row is bad, or the disk
            fails.
    """
    chosen = _converters(source)
    check_files(files, [options.out, _missing_file(options.out)])
    if shared := shared_stems(files):
        raise UserError(f"several files are named {shared[0]}, of which ids of records are made; rename them")
    forms = [find_form(file, chosen) for file in files]
    if len({(converter.name, form.name) for converter, form in forms}) > 1:
        listed = ", ".join(
            f"{file.name} is {converter.name}, {form.name}"
            for file, (converter, form) in zip(files, forms, strict=True)
        )
        raise UserError(f"the files are of several layouts ({listed}); convert them one by one, then mix")
    converter, form = forms[0]
    for note in _notes(converter, form):
        print(f"note: {note}", file=sys.stderr)
    store = options.images or options.out.parent / "images"
    matches = _matches(converter, files, image_folder)
    job = ConvertJob(
        converter.name,
        form.name,
        options.out.absolute(),
        store.absolute(),
        format,
        matches.key,
        image_folder=image_folder,
        any_path=any_path,
    )
    with _parts(job, files, options.out, options, lambda folder: matching(job, matches, folder)) as (folder, tally, _):
        # before anything is refused: where all images are missing, the list is what a user needs
        if tally.missing:
            write_atomically(_missing_file(options.out), "".join(f"{line}\n" for line in tally.missing))
        else:
            _missing_file(options.out).unlink(missing_ok=True)  # of a run before the last images came
        _refuse_nothing(tally, files)
        join_parts(folder, "all", options.out, job.schema)
    return tally


def sample(files: Sequence[Path], options: Options, count: int | None, seed: int) -> Tally:
    """Draws records of all files without replacement, in the order of the files; all where `count` is None."""
    check_files(files, [options.out])
    pieces, target = pieces_of(files), _target(files, options.out, options)
    job = SampleJob(target, seed, sample_counts(pieces, count, seed))
    with _parts(job, files, options.out, options) as (folder, tally, _):
        _refuse_nothing(tally, files)
        join_parts(folder, "all", options.out, job.schema)
    return tally


def split(files: Sequence[Path], options: Options, share: float, by: str, seed: int) -> Tally:
    """Divides records into `train.parquet` and `val.parquet` of the folder `options.out`."""
    check_files(files, [options.out / f"{side}.parquet" for side in (TRAIN, VAL)])
    target = _target(files, options.out / f"{TRAIN}.parquet", options, options.out / "images")
    job = SplitJob(target, seed, share, by)
    with _parts(job, files, options.out / "split", options) as (folder, tally, _):
        for side in (TRAIN, VAL):
            if not tally.made[side]:
                raise UserError(f"no record came to {side}; choose another --val or --seed")
        for side in (TRAIN, VAL):
            join_parts(folder, side, options.out / f"{side}.parquet", job.schema)
    return tally


def mix(
    shares: Sequence[mixing.Share], options: Options, total: int | None, curriculum: Sequence[str], seed: int
) -> Tally:
    """Mixes files by weight, shuffled or stratum by stratum."""
    files = [share.path for share in shares]
    check_files(files, [options.out], "with a larger weight")
    kind_of(files)  # before the plan, which reads every difficulty
    plan = mixing.plan_mixture(shares, total, curriculum, seed)
    if not plan.shape[1]:
        raise UserError("the mixture has no record; raise --records")
    target, rows = _target(files, options.out, options), mixing.bucket_rows(shares, plan.shape[1])
    job = mixing.MixJob(target, mixing.plan_key(plan), tuple(str(file) for file in files), rows)
    with _parts(job, files, options.out, options, lambda folder: mixing.planned(job, plan, folder)) as (
        folder,
        tally,
        _,
    ):
        _refuse_nothing(tally, files)
        mixing.join_buckets(folder, options.out, job.schema)
    return tally


def check_files(files: Sequence[Path], outputs: Sequence[Path], instead: str = "") -> None:
    """Refuses a file that is named twice, or would be replaced by an output, under whatever names.

    Args:
        files: those that are read.
        outputs: those that are made.
        instead: what naming a file twice may have been meant as.

    Raises:
        UserError: there is such a file.
    """
    seen = dict[Path, Path]()
    for file in files:
        if (before := seen.get(file.resolve())) is not None:
            which = str(file) if before == file else f"{file} and {before} are one file, which"
            raise UserError(f"{which} is named twice; name it once{f', {instead}' if instead else ''}")
        seen[file.resolve()] = file
    for output in outputs:
        if (found := seen.get(output.resolve())) is not None:
            raise UserError(f"{output} would replace {found}, which is read; name another output")


def write_result(path: Path, text: str) -> None:
    """Writes a file that a command makes, whole or not at all. Raises UserError where the disk does not take it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or name another file"
        ) from error


def progress_of(files: Sequence[Path]) -> Callable[[int, int], None] | None:
    """Progress in the terminal, and a line with the cure for each file that has a giant row group."""
    for line in giant_groups(files):
        print(f"note: {line}", file=sys.stderr)
    return progress_line(files[0].name if len(files) == 1 else f"{len(files)} files")


@contextlib.contextmanager
def _parts(
    job: Job, files: Sequence[Path], out: Path, options: Options, prepared: Callable[[Path], Job] | None = None
) -> Iterator[tuple[Path, Tally, tuple[Piece, ...]]]:
    """Parts of an output, made by the job, or by what `prepared` makes of it in the folder of the parts.

    What a job reads beside its files is written there, so that no other process can exchange it.
    """
    pieces = pieces_of(files)
    with parts_folder(out, job, pieces) as folder:
        work = prepared(folder) if prepared is not None else job
        tally = write_parts(work, pieces, folder, options.workers, options.skip_bad, progress_of(files))
        yield folder, tally, pieces


def _target(files: Sequence[Path], out: Path, options: Options, images: Path | None = None) -> Target:
    store = options.images or images or out.parent / "images"
    return Target(out.absolute(), store.absolute(), kind_of(files), shared_stems(files))


def _converters(source: str) -> list[Converter]:
    if not source:
        return list(CONVERTERS.values())
    if source not in CONVERTERS:
        raise UserError(f"--from is {source}; known are {', '.join(CONVERTERS)}")
    return [CONVERTERS[source]]


def _notes(converter: Converter, form: Form) -> Iterator[str]:
    yield f"{converter.title}: {form.name}"
    yield from converter.notes
    if not converter.rows_seen:
        yield "this converter follows the card of the set and has seen none of its rows: look at some (data show)"


def _matches(converter: Converter, files: Sequence[Path], folder: Path | None) -> Matches:
    if not converter.needs_folder:
        return Matches()
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{converter.title} holds no images: download those of its column image_url into a folder, under any "
            "names, and name it with --image-folder"
        )
    return match_images(files, DIGEST, folder)


def _refuse_nothing(tally: Tally, files: Sequence[Path]) -> None:
    if not sum(tally.made.values()):
        why = f" ({len(tally.missing)} images are missing, listed in *.missing.tsv)" if tally.missing else ""
        raise UserError(f"{', '.join(file.name for file in files)}: no record can be used{why}")


def _missing_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}.missing.tsv")
