"""From a folder or a name to a model with weights, copying nothing that need not be copied."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama4_core.assembly.assemble import DTYPES, assemble, usable_device
from llama4_core.checkpoints.assign import assign
from llama4_core.checkpoints.formats import CheckpointFormat, checkpoint_format, detect, read_spec
from llama4_core.checkpoints.keys import VISION, native_shapes
from llama4_core.errors import CheckpointError
from llama4_core.hub.resolve import folder_of
from llama4_core.hub.settings import repo_of
from llama4_core.hub.web import NotThereError
from llama4_core.model.initialise import initialise
from llama4_core.model.transformer import Transformer
from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_core.specs import ModelSpec
from llama4_core.tokenizers import Tokenizer, check_vocabulary, load_tokenizer

log = logging.getLogger(__name__)


def load(
    path_or_name: str | Path,
    dtype: str = "auto",
    device: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    quantize: str | None = None,
    adapters: Sequence[str | Path] = (),
    *,
    random: int | None = None,
    plugins: Sequence[str | Path] = (),
    revision: str | None = None,
    format: str | None = None,  # noqa: A002 - the public name of the argument
    max_positions: int | None = None,
) -> Transformer:
    """Loads a model: a checkpoint folder in any installed format, a model's name, or a repository.

    A repository (``org/name``) is taken from the local Hugging Face cache when it is complete
    there, without any network, and is downloaded into it otherwise; no code of it is ever run.

    The model is assembled on the meta device and the mapped files are assigned to it, so with
    ``dtype="auto"`` on a CPU nothing is read before it is used. The mapping is private: training
    the model never writes into the files.

    Args:
        path_or_name: a folder, the name of a model that ships with its weights, or a repository of
            the Hugging Face Hub: ``org/name`` or ``org/name@revision``.
        dtype: "auto" keeps what is stored; or "float32", "bfloat16", "float16", "float64".
        device: where the weights go.
        overrides: slot path globs -> component names or objects.
        quantize: no quantiser exists yet; anything but None is refused.
        adapters: refused: they are put onto a loaded model, by
            ``llama4_train.lora.load_adapter(model, folder)``.
        random: a seed: take only the description and draw the weights.
        plugins: the user's own plugin files.
        revision: branch, tag or commit of a repository; "main" if it is not said.
        format: of the folder; None finds out, except that "meta" has to be asked for, as its files
            are pickle (nothing in them is ever run).
        max_positions: longest context, for a params.json that does not say it.

    Returns:
        The model, with its tokenizer if the folder has one. The weights of an image encoder are
        kept in ``model.extra_weights`` where no installed package runs it, or where
        ``overrides={"vision": "none"}`` leaves it out; they are written back on save.

    Raises:
        CheckpointError: no such model, or its files are damaged or do not fit their description.
        SpecError: the description is not understood, or torch cannot use the device here.
        TokenizerError: the tokenizer does not fit the model.
        ComponentError: a part is unknown or refused.
    """
    if quantize is not None:
        raise CheckpointError(
            f"quantize is {quantize!r}, but no quantiser is installed; leave it out"
        )
    if adapters:
        raise CheckpointError(
            f"adapters are {[str(adapter) for adapter in adapters]}; expected none: load the model "
            "without them, then call llama4_train.lora.load_adapter(model, folder) for each, which "
            "pip install llama4-train brings"
        )
    if dtype != "auto" and dtype not in DTYPES:
        raise CheckpointError(f"dtype is {dtype!r}; expected 'auto' or one of {', '.join(DTYPES)}")
    usable_device(device)
    known = catalogue().with_local(*plugins) if plugins else None
    found = resolve(path_or_name, known, revision=revision, pickles=format == "meta")
    settings: dict[str, Any] = {"overrides": overrides or {}, "plugins": plugins}
    if isinstance(found, ModelSpec):
        if random is None:
            raise CheckpointError(
                f"{path_or_name} is a shape, not weights; load a folder with a checkpoint of it, "
                "or draw random weights with random=SEED (--random SEED)"
            )
        return _drawn(found, dtype, device, random, settings)
    form = detect(found, known) if format is None else checkpoint_format(format, known)
    spec = read_spec(form, found, max_positions)
    if random is not None:
        model = _drawn(spec, dtype, device, random, settings)
    else:
        model = _mapped(form, found, spec, dtype, device, settings)
    model.folder = found
    model.tokenizer = _tokenizer(found, spec, known)
    return model


def resolve(
    path_or_name: str | Path,
    known: Catalogue | None = None,
    *,
    revision: str | None = None,
    pickles: bool = False,
) -> Path | ModelSpec:
    """The folder or the shape that is meant.

    A folder wins over a model of the same name, and that over a repository, of which ``pickles``
    takes Meta's files instead of safetensors.

    Raises:
        CheckpointError: there is none of the three, or the repository cannot be had.
    """
    path = Path(path_or_name).expanduser()
    name = str(path_or_name)
    local = path.is_dir()
    if path.is_file():
        raise CheckpointError(f"{path}: is a file; expected the folder that holds the checkpoint")
    known = known or catalogue()
    entries = known.components("models")
    names = [entry.name for entry in entries]
    every = {*names, *(entry.full_name for entry in entries)}
    base = name.removesuffix("-text")
    if (local or name in every or base in every) and revision is not None:
        what = "a folder" if local else "a model that is installed"
        raise CheckpointError(
            f"{name}: is {what}, which has no revision {revision!r}; leave it out"
        )
    if local:
        return path
    if name in every or base in every:
        built = known.find("models", base if base in every else name).component.build()
        if isinstance(built, ModelSpec):
            return built if base == name else replace(built.text_only(), name=name)
        if base != name and name not in every:
            raise CheckpointError(
                f"{name}: {base} comes as weights, not as a shape that has a text half; "
                f"load {base} with overrides={{'vision': 'none'}} (--set vision=none)"
            )
        return Path(built)
    repo = repo_of(name, revision)
    if repo is not None:
        try:
            return folder_of(repo, pickles=pickles)
        except NotThereError as error:
            raise CheckpointError(
                f"{name}: no such folder here, and on the Hub: {error}"
            ) from error
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise CheckpointError(
        f"{name}: neither a folder, a known model nor a repository (org/name); {hint}known models "
        f"are {', '.join(names)}"
    )


def _drawn(
    spec: ModelSpec, dtype: str, device: str, seed: int, settings: dict[str, Any]
) -> Transformer:
    chosen = spec.dtype if dtype == "auto" else dtype
    model = assemble(replace(spec, dtype=chosen), device=device, dtype=chosen, **settings)
    initialise(model, seed)
    return model


def _mapped(
    form: CheckpointFormat,
    folder: Path,
    spec: ModelSpec,
    dtype: str,
    device: str,
    settings: dict[str, Any],
) -> Transformer:
    stored = dict(form.tensors(folder, spec))
    for name, tensor in stored.items():
        if tensor.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{folder}: {name} is stored as {tensor.dtype}, which nothing installed can run; "
                f"expected one of {', '.join(DTYPES)}"
            )
    chosen = _stored_dtype(stored, spec) if dtype == "auto" else dtype
    spec = replace(spec, dtype=chosen)
    model = assemble(
        spec, device="meta", dtype=chosen, run_on=torch.device(device).type, **settings
    )
    extra: dict[str, Tensor] = {}
    if not any(name.startswith(VISION) for name in model.state_dict()):
        extra = {name: stored.pop(name) for name in list(stored) if name.startswith(VISION)}
    assign(
        model,
        stored,
        native_shapes(spec) if settings["overrides"] else None,
        folder,
        cast=dtype != "auto",
        device=torch.device(device),
    )
    model.extra_weights = extra
    if extra:
        log.info("%s: %d vision tensors kept aside, written back on save", folder, len(extra))
    strided = [name for name, weight in model.named_parameters() if not weight.is_contiguous()]
    if strided:
        log.warning(
            "%s: %d expert weights are used transposed, as this folder stores them: decoding is "
            "about half as fast as it could be; `llama4 convert %s OUT` lays them out once for all",
            folder,
            len(strided),
            folder,
        )
    return model


def _stored_dtype(stored: Mapping[str, Tensor], spec: ModelSpec) -> str:
    embedding = stored.get("embedding.weight")
    return spec.dtype if embedding is None else str(embedding.dtype).removeprefix("torch.")


def _tokenizer(folder: Path, spec: ModelSpec, known: Catalogue | None) -> Tokenizer | None:
    tokenizer = load_tokenizer(folder, bos=spec.tokens.bos, known=known)
    if tokenizer is not None:
        check_vocabulary(tokenizer, spec.vocabulary)
    return tokenizer
