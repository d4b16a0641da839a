"""Everything that a run is made of, put together from its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llama4_core.assembly.assemble import DTYPES, assemble
from llama4_core.checkpoints.load import load
from llama4_core.model.freezing import train_only
from llama4_core.model.initialise import initialise
from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_core.specs.find import spec_from_path, spec_named
from llama4_core.tokenizers import load_tokenizer
from llama4_train.checkpoints.adapters import adapt
from llama4_train.checkpoints.runs import is_run, model_from_run
from llama4_train.data.encode import Encoder
from llama4_train.data.mixture import Mixture
from llama4_train.data.pipeline import Pipeline
from llama4_train.errors import RecipeError
from llama4_train.objectives.routing import model_counts
from llama4_train.optimizers.roles import parameters_of
from llama4_train.protocols import Objective, Parameter
from llama4_train.recipe import DataPart, ModelPart, Recipe
from llama4_train.trainer.recompute import recompute


@dataclass
class Parts:
    """What a trainer works with.

    Attributes:
        recipe: where all of it comes from.
        model: in training mode, the trained parameters marked.
        data: gives batches.
        objective, optimizer: built components.
        folder: of checkpoints and logs, or None.
        known: the catalogue that they come from; None for what is installed.
    """

    recipe: Recipe
    model: Any
    data: Pipeline
    objective: Objective
    optimizer: Any
    folder: Path | None = None
    known: Catalogue | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        *,
        folder: str | Path | None = None,
        known: Catalogue | None = None,
        plugins: Sequence[str | Path] = (),
    ) -> Parts:
        """Builds every part.

        Args:
            recipe: what is wanted.
            folder: of checkpoints and logs, or None.
            known: the catalogue; the model itself is made of what is installed.
            plugins: the user's own plugin files, for the model too.

        Raises:
            PluginError: a plugin file cannot be used.
            RecipeError: parts do not fit together.
            ComponentError: a component is unknown or cannot run here.
        """
        found = known or catalogue()
        if plugins:
            found = found.with_local(*plugins)
        model = model_of(recipe.model, recipe.seed, found, plugins)
        settings = dict(recipe.optimizer.settings)
        if "lr" not in settings:
            raise RecipeError("optimizer.settings has no lr; add the largest learning rate")
        optimizer = found.find("optimizers", recipe.optimizer.name).component.build(
            parameters_of(model), **settings
        )
        objective = found.find("objectives", recipe.objective.name).component.build(
            **recipe.objective.settings
        )
        return cls(
            recipe,
            model,
            data_of(recipe.data, model, recipe.seed, found),
            objective,
            optimizer,
            None if folder is None else Path(folder),
            found,
        )

    @property
    def trained(self) -> list[Parameter]:
        """The parameters that are trained, with their roles."""
        return parameters_of(self.model)

    def counted(self, routings: Sequence[Any], counts: list[Tensor | None]) -> list[Tensor | None]:
        """Adds the tokens per expert of one batch to ``counts``, layer by layer."""
        fresh = model_counts(self.model, routings)
        if not counts:
            return fresh
        return [
            one if one is None or before is None else before + one
            for one, before in zip(fresh, counts, strict=True)
        ]

    def balance(self, counts: Sequence[Tensor | None], kept: float | None = None) -> None:
        """Lets the routers that are trained see the load of the step, once.

        What a frozen router keeps stays as it is too: nothing that is saved of a run of adapters
        would hold it.

        Args:
            counts: tokens per expert of each layer.
            kept: share of their balancing biases that routers keep, in the place of seeing the
                load; None to see it. A router that has no ``release`` sees it to the end.
        """
        for index, count in enumerate(counts):
            if count is None:
                continue
            router = self.model.layers[index].feed_forward.router
            trained = [parameter.requires_grad for parameter in router.parameters()]
            if trained and not any(trained):
                continue
            if kept is not None and hasattr(router, "release"):
                router.release(kept)
            else:
                router.after_step(count)


def model_of(
    part: ModelPart,
    seed: int,
    known: Catalogue | None = None,
    plugins: Sequence[str | Path] = (),
) -> nn.Module:
    """The model that is trained, in memory of its own.

    Args:
        part: of the recipe.
        seed: of random weights.
        known: where models are looked up by name; None for what is installed.
        plugins: the user's own plugin files, whose parts the model may have.
    """
    if part.dtype not in DTYPES:
        raise RecipeError(f"model.dtype is {part.dtype!r}; expected one of {', '.join(DTYPES)}")
    settings: dict[str, Any] = {
        "dtype": part.dtype,
        "overrides": part.overrides,
        "plugins": plugins,
    }
    start = Path(part.start).expanduser()
    model: Any
    if part.weights == "stored":
        model = (model_from_run if is_run(part.start) else load)(part.start, **settings)
    elif start.is_dir():
        model = load(part.start, random=seed, **settings)
    else:
        spec = (
            spec_from_path(start)
            if start.is_file()
            else spec_named(part.start, known or catalogue())
        )
        model = assemble(spec, device="cpu", **settings)
        initialise(model, seed)
    if part.tokenizer is not None:
        model.tokenizer = load_tokenizer(Path(part.tokenizer), bos=model.spec.tokens.bos)
    if model.tokenizer is None:
        raise RecipeError(f"{part.start} has no tokenizer; say its folder in model.tokenizer")
    if part.train:
        train_only(model, part.train)
    if part.lora is not None:
        adapt(model, part.lora, seed)
    recompute(model, part.checkpointing)
    ready: nn.Module = model.train()
    return ready


def data_of(part: DataPart, model: Any, seed: int, known: Catalogue) -> Pipeline:
    """The batches of a run."""
    sources = [
        (
            one.label or one.name,
            known.find("data_sources", one.name).component.build(**one.settings),
        )
        for one in part.sources
    ]
    return Pipeline(
        Mixture(sources, [one.weight for one in part.sources], seed),
        Encoder(model.tokenizer, model.modalities, part.length),
        part.tokens,
        part.on_error,
    )
