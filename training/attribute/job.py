"""Explain every image of a folder, batch by batch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import saaa
from saaa.attribution.options import check_options
from saaa.errors import DataError, OptionInvalid
from saaa.runtime.executor import Executor
from training.attribute.config import AttributeConfig
from training.attribute.data import Items, find_items, load_ahead
from training.attribute.explain import Explainer, needs_graph
from training.attribute.gallery import write_gallery
from training.attribute.store import GALLERY, INDEX, RUN, TABLE, Rank, Store
from training.attribute.targets import check_labels, read_targets
from training.progress import progress

FAILURES_NAMED = 3


def attribute_folder(config: AttributeConfig) -> dict[str, Any]:
    """Explain every image of a folder; print a summary.

    Started again with the same options it goes on where it was, and under torchrun several processes share the
    work; either way the results are the same bytes. See `training.attribute.store` for the files.

    Returns:
        The content of run.json; "complete" is false while other processes are still at work.

    Raises:
        ArchiveError: the archive is unusable.
        DataError: no images, or not what the model or the options need; the output folder holds something else or
            cannot be written; or not one item could be explained.
        OptionInvalid: an option that the model does not support, or other options than the run in the folder.
    """
    rank = Rank.of_environment()
    if config.out.resolve().is_relative_to(config.data.resolve()):
        raise OptionInvalid(
            f"out ({config.out}) lies inside data, so its pictures would be taken for data; choose a folder beside it.",
            field="out",
        )
    check_options(config.explain())
    executor = Executor.open(config.archive, threads=config.threads)
    wanted = read_targets(config.targets, executor.info)
    explainer = Explainer(executor, config, wanted)
    items = find_items(config, executor.info)
    check_labels(wanted, items.all)
    needs_graph(config, items.all)
    model = executor.info
    identity = {**config.shaping(), "archive": model.digest, "data": items.digest, "software": saaa.__version__}
    with Store(config.out, identity, rank, overwrite=config.overwrite) as store:
        return _work(explainer, store, items, config)


def _work(explainer: Explainer, store: Store, items: Items, config: AttributeConfig) -> dict[str, Any]:
    """Do this process's share, and put everything together if nobody else has to do theirs."""
    model, rank = explainer.model, store.rank
    if store.complete():
        if rank.rank == 0:
            write_gallery(config, store, model)  # its options may be others now
        return _summary(store, config)
    count = -(-len(items.all) // config.batch_size)
    _explain(explainer, store, items, config, count)
    report = {
        "software": saaa.__version__,
        "model": {"kind": model.kind.value, "name": model.name, "version": model.version, "digest": model.digest},
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()},
        "skipped": list(items.skipped),
    }
    if store.finish(count, report, lambda: write_gallery(config, store, model)):
        return _summary(store, config)
    print(f"process {rank.rank} of {rank.world} has done its share; the last one puts the results together")
    return store.run()


def _explain(explainer: Explainer, store: Store, items: Items, config: AttributeConfig, count: int) -> None:
    """Do this process's share of what is not done yet."""
    done, size = store.done(), config.batch_size
    share = store.rank.share(count)
    numbers = [batch for batch in share if batch not in done]
    if len(numbers) < len(share):
        print(f"goes on: {len(share) - len(numbers)} of {len(share)} batches are done")
    batches = [items.all[batch * size : (batch + 1) * size] for batch in numbers]
    loading = load_ahead(batches, explainer.model, workers=config.workers)
    try:
        started = perf_counter()
        for batch, loaded in zip(progress(numbers, "attribute"), loading, strict=True):
            answers = explainer.explain(loaded)
            now = perf_counter()
            store.add(batch, batch * size, answers, now - started)
            started = now
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on from here") from None


def _summary(store: Store, config: AttributeConfig) -> dict[str, Any]:
    """Say what came of it; nothing fails without a word."""
    run = store.run()
    counts, seconds = run["counts"], run["seconds"]
    explained = counts["items"] - counts["failed"]
    shared = f" in {run['processes']} processes together" if run["processes"] > 1 else ""
    print(f"{explained} of {counts['items']} explained, {counts['maps']} maps, {seconds:.1f} s of work{shared}")
    reasons = (f"{r['file']} ({r['error']['message']})" for r in store.records() if r["error"] is not None)
    first = [reason for reason, _ in zip(reasons, range(FAILURES_NAMED), strict=False)]
    if counts["failed"]:
        print(f"{counts['failed']} failed, such as {'; '.join(first)}")
    if run["skipped"]:
        print(f"{len(run['skipped'])} regions skipped, such as {run['skipped'][0]}")
    if not explained:
        raise DataError(
            f"Not one of {counts['items']} could be explained: {first[0]}. {store.folder / INDEX} lists all."
        )
    names = [INDEX, TABLE, RUN] + ([GALLERY] if config.gallery else [])
    print(f"{store.folder}: {', '.join(names)}")
    return run
