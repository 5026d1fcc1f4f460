"""The command line: `saaa up`, `saaa serve`, `saaa analyze`, `saaa compare`, `saaa models`, `saaa release`,
`saaa ratings`, `saaa tokens`, `saaa audit`.

Exit codes: 0 done; 1 an item failed; 2 wrong usage, or the service cannot start or be reached; 141 nobody reads what is
printed any more. What a command needs is imported when it runs, so that `saaa --help` is quick.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from saaa.errors import OptionInvalid, SaaaError
from serving.commands.connection import Connection

Service = Annotated[Connection, tyro.conf.arg(name="")]
HERE = Connection()

DONE, FAILED, UNUSABLE, UNREAD = 0, 1, 2, 141


def up() -> int:
    """Serve all archives of a folder: starts the backend and the service, until it is told to stop."""
    return _serving("up", [])


def serve() -> int:
    """Serve in front of a TorchServe that runs already; it may come and go."""
    return _serving("serve", [])


def torchserve() -> int:
    """Run a TorchServe for a service in another container, until it is told to stop."""
    return _serving("torchserve", [])


def analyze(
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    service: Service = HERE,
    graph: Path | None = None,
    out: Path | None = None,
    json: bool = False,
    outputs: tuple[Literal["predictions", "attributions", "captions"], ...] = (),
    top_k: int | None = None,
    method: str | None = None,
    classes: tuple[str, ...] = (),
    steps: int | None = None,
    gamma: float | None = None,
    masks: int | None = None,
    seed: int | None = None,
    deletion: bool = False,
    effects: bool = False,
    words: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
    word_method: str | None = None,
    text: str | None = None,
    beam_width: int | None = None,
    captions: int | None = None,
    max_words: int | None = None,
    length_penalty: float | None = None,
    sample: bool = False,
    temperature: float | None = None,
    top_words: int | None = None,
    top_p: float | None = None,
    classifier: str | None = None,
    captioner: str | None = None,
    timeout: float = 60.0,
) -> int:
    """Ask a running service about photographs: what class, why, and in words.

    Args:
        photos: image files, and folders of them.
        service: how to reach it.
        graph: scene graphs as region JSON: one region, regions by id, either of them by photo file name, or a folder
            with one such file a photo (PHOTO.json). Unless given, the service proposes graphs.
        out: folder for a JSON file a photo, overlays, drawn graphs and report.html. What was answered is kept in
            its answers.jsonl, so that the same command goes on where it was stopped.
        json: print the whole answers as JSON instead of a summary.
        outputs: what to ask for; all that the service can give unless given.
        top_k: how many classes, best first.
        method: attribution method; the model's default unless given.
        classes: classes to explain, by name or index; the most probable unless given.
        steps: integration steps of integrated_gradients.
        gamma: weight of the gamma rule of layer_lrp, cp_lrp and attn_lrp, 0 to 1.
        masks: random masks of rise, and coalitions where a graph has too many objects for all.
        seed: of whatever is drawn at random, captions too.
        deletion: also measure how far each target's probability drops when its map's top tenth is removed.
        effects: also measure the effect of each node of the graph by removing it; needs --graph.
        words: words of the best caption to explain, by their place from 0, or "all".
        nodes: nodes of the graph to explain in the best caption, such as object:7, attribute:7:0, relationship:3.
        word_method: attribution method for words and nodes; the captioner's default unless given.
        text: a caption to score and explain instead of making one.
        beam_width: beam width of the captioner.
        captions: how many captions.
        max_words: longest caption in words.
        length_penalty: how much longer captions are favoured, 0 to 5.
        sample: draw captions at random instead of searching for the most probable ones.
        temperature: with --sample: less than 1 prefers likely words more, 0.01 to 10.
        top_words: with --sample: draw among so many likeliest words.
        top_p: with --sample: then among the fewest likeliest words that have this share of the probability.
        classifier: NAME or NAME:VERSION.
        captioner: NAME or NAME:VERSION.
        timeout: deadline in seconds for each photo; several photos have their time together.
    """
    from saaa.client.request import AnalyzeOptions, SamplingOptions
    from serving.commands.ask import run_analyze, word_places

    drawing: SamplingOptions = {"temperature": temperature, "top_k": top_words, "top_p": top_p}
    if not sample and any(value is not None for value in drawing.values()):
        raise OptionInvalid("--temperature, --top_words and --top_p shape drawn captions; add --sample.")
    options: AnalyzeOptions = {
        "outputs": outputs,
        "top_k": top_k,
        "method": method,
        "classes": classes,
        "steps": steps,
        "gamma": gamma,
        "masks": masks,
        "seed": seed,
        "deletion": deletion,
        "effects": effects,
        "words": word_places(words),
        "nodes": nodes,
        "word_method": word_method,
        "text": text,
        "beam_width": beam_width,
        "captions": captions,
        "max_words": max_words,
        "length_penalty": length_penalty,
        "sampling": {**drawing, "seed": seed} if sample else None,
        "classifier": classifier,
        "captioner": captioner,
    }
    return run_analyze(photos, service, graph=graph, out=out, as_json=json, timeout=timeout, options=options)


def compare(
    photo: Annotated[Path, tyro.conf.Positional],
    *,
    service: Service = HERE,
    models: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
    graph: Path | None = None,
    out: Path = Path("compare.html"),
    json: bool = False,
    top_k: int = 5,
    method: str | None = None,
    steps: int | None = None,
    gamma: float | None = None,
    masks: int | None = None,
    seed: int | None = None,
    deletion: bool = False,
    timeout: float = 60.0,
) -> int:
    """Ask several models, or all versions of one, about a photograph, and show their answers and maps side by side.

    Args:
        photo: an image file.
        service: how to reach it.
        models: NAME for all its versions, or NAME:VERSION; differences are to the first. All classifiers unless given.
        classes: classes whose maps are shown, by name; the most probable one of each model unless given.
        graph: a scene graph as region JSON: then the score of each of its nodes is compared too.
        out: the HTML page to write; it needs no other file.
        json: print the whole answers as JSON instead of a table.
        top_k: how many classes of each model are listed.
        method: attribution method; each model's default unless given.
        steps: integration steps of integrated_gradients.
        gamma: weight of the gamma rule of layer_lrp, cp_lrp and attn_lrp, 0 to 1.
        masks: random masks of rise.
        seed: of whatever is drawn at random.
        deletion: also measure how far each class's probability drops when its map's top tenth is removed.
        timeout: deadline for each call in seconds.
    """
    from saaa.client.request import AnalyzeOptions
    from serving.commands.compare import run_compare

    options: AnalyzeOptions = {
        "method": method,
        "steps": steps,
        "gamma": gamma,
        "masks": masks,
        "seed": seed,
        "deletion": deletion,
    }
    return run_compare(
        photo,
        service,
        models=models,
        classes=classes,
        graph=graph,
        out=out,
        as_json=json,
        top_k=top_k,
        timeout=timeout,
        options=options,
    )


def models(
    action: Annotated[Literal["list", "check", "load", "unload", "promote", "rollback"], tyro.conf.Positional] = "list",
    what: Annotated[str, tyro.conf.Positional] = "",
    *,
    models: Path | None = None,
    share: float | None = None,
    pin: bool = False,
    service: Service = HERE,
    json: bool = False,
) -> int:
    """List the models of a running service, or change what is served from a folder while it runs.

    The changes are written to models.yaml in the folder; every service of the folder follows within seconds, and no
    request is dropped. "check" says whether every archive is what it should be. "load m-2.mar" serves an archive of the
    folder to those who name its version; "promote m:2 --share 0.1" sends one request in ten there, "promote m:2" all
    that name no version; "rollback m" undoes the last change of a model; "unload m:1" lets go of a version, "unload m"
    of all.

    Args:
        action: what to do.
        what: to load, an archive's file name; to promote, NAME:VERSION; to unload, NAME or NAME:VERSION; to go back,
            NAME.
        models: the folder of archives to change.
        share: with promote: only this share of the requests that name no version, above 0 and below 1.
        pin: with load: callers were promised this version, unload refuses it.
        service: with list: how to reach it.
        json: with list: print everything that is known of them as JSON.
    """
    if action == "list":
        if what or models is not None:
            raise OptionInvalid("A list is asked of a running service (--address); say what to do with it otherwise.")
        from serving.commands.ask import run_models

        return run_models(service, as_json=json)
    if models is None:
        raise OptionInvalid(f"Name the folder of archives: saaa models {action} ... --models FOLDER.", field="models")
    if (share is not None and action != "promote") or (pin and action != "load"):
        raise OptionInvalid("--share goes with promote, --pin with load.")
    if action == "check":
        from serving.commands.manage import run_check

        return run_check(models)
    from serving.commands.manage import run_edit

    return run_edit(action, what, models, share=share, pin=pin)


def release(
    archive: Annotated[Path, tyro.conf.Positional],
    *,
    report: Path,
    gates: Path,
    models: Path,
    photos: tuple[Path, ...],
    service: Service = HERE,
    share: float = 0.1,
    requests: int = 20,
    within_s: float = 600.0,
) -> int:
    """Bring an archive into a running service: through gates and a canary, or not at all.

    It is held against what its evaluation measured, copied into the folder of archives, served to a share of the
    callers, asked by name about some pictures, and made the default if it answers all of them; else it is taken back.

    Args:
        archive: the .mar file.
        report: JSON of `saaa-train evaluate ... --archive` about it.
        gates: YAML of what the report must reach, a line a figure: `accuracy: {at_least: 0.8}`.
        models: the folder of archives that the service follows.
        photos: pictures to ask about: files, and folders of them.
        service: how to reach it.
        share: of the requests that name no version, what goes to it before it is the default, above 0 and below 1.
        requests: how many of the pictures it is asked about.
        within_s: seconds in which it must be loaded and have answered.
    """
    from serving.commands.release import Release, run_release

    wanted = Release(
        archive=archive,
        report=report,
        gates=gates,
        models=models,
        photos=photos,
        share=share,
        requests=requests,
        within_s=within_s,
    )
    return run_release(wanted, service)


def ratings(
    action: Annotated[Literal["export"], tyro.conf.Positional],
    store: Annotated[str, tyro.conf.Positional],
    *,
    out: Path | None = None,
    images: Path | None = None,
) -> int:
    """Write what people said of explanations as JSON lines; the service may be running.

    Args:
        action: "export".
        store: the file or the database that `saaa up --ratings` names.
        out: file to write; standard output unless given.
        images: folder for the images that people let us keep; unless given, they stay in the store.
    """
    from serving.ratings.export import export_file, export_ratings

    if out is None:
        export_ratings(store, sys.stdout, images)
    else:
        count = export_file(store, out, images)
        print(f"{out}: {count} rating{'' if count == 1 else 's'}")
    return DONE


def audit(
    request_id: Annotated[str, tyro.conf.Positional],
    *,
    journal: Path,
    models: Path,
    image: tuple[Path, ...],
) -> int:
    """Make an answer again from the journal, the archives and the image, and say whether it is the same.

    Args:
        request_id: of the answer.
        journal: the file that `saaa up --journal` names; the files put aside lie beside it.
        models: folder with the archives, at any depth.
        image: the request's image; more images, of requests that were computed with it, let the batch be made again
            as it was, and its answer compared bit for bit.
    """
    from serving.commands.audit import run_audit

    return run_audit(request_id, journal, models, image)


def tokens(
    action: Annotated[Literal["create", "list", "revoke"], tyro.conf.Positional],
    file: Annotated[Path, tyro.conf.Positional],
    *,
    name: str | None = None,
    scopes: tuple[Literal["analyze", "feedback", "models", "metrics"], ...] = ("analyze",),
    days: float | None = 90.0,
    id: str | None = None,
) -> int:
    """Make, list or revoke the API tokens of a service; it may be running.

    Args:
        action: "create" writes a new token, and it alone, to standard output: it is kept nowhere else.
        file: the token file that `saaa up --tokens` names; "create" makes it when absent.
        name: with create: whose the token is.
        scopes: with create: what it may do.
        days: with create: how long it lasts; None until it is revoked.
        id: with revoke: the token, by its id in the list.
    """
    from serving.commands import tokens as tokens_cli

    if (action == "create") != (name is not None) or (action == "revoke") != (id is not None):
        raise OptionInvalid("Give --name to create a token, --id to revoke one, neither to list them.")
    if name is not None:
        tokens_cli.create(file, name, scopes, days)
    elif id is not None:
        tokens_cli.revoke(file, id)
    else:
        tokens_cli.show(file)
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "up": up,
    "serve": serve,
    "torchserve": torchserve,
    "analyze": analyze,
    "compare": compare,
    "models": models,
    "release": release,
    "ratings": ratings,
    "tokens": tokens,
    "audit": audit,
}


SERVING = ("up", "serve", "torchserve")
"""Commands whose options are the facade's settings: read only when one of them is run."""


def _serving(command: str, words: Sequence[str]) -> int:
    from serving.commands import starting

    return starting.run(command, words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None is the process's own.

    Returns:
        The exit code.
    """
    # gRPC's core writes lines of its own to standard error; what matters is said by the errors it raises.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in SERVING:
            return _serving(words[0], words[1:])
        code: int = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="saaa",
            description="Explainable image understanding as a service.",
            args=words,
        )
        sys.stdout.flush()
        return code
    except SaaaError as error:
        print(f"saaa: {error.message}", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:
        # Who read what is printed has gone, as `head` does. Python must not meet the broken pipe again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
