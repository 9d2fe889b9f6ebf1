"""Which model each request asks for, where a server has LoRA adapters beside its base."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from profiler.errors import LoadError
from profiler.records import Endpoint, Prompt


def asked_models(endpoint: Endpoint, prompts: Sequence[Prompt], how: Literal["mixed"] | None, seed: int) -> list[str]:
    """The name for each request's body. `mixed`: the base or one of the adapters, all equally likely, one for a whole session.

    Of one seed the i-th choice is always the same. Raises LoadError where adapters are asked for and the server has none.
    """
    if how is None:
        return [endpoint.model] * len(prompts)
    if not endpoint.adapters:
        raise LoadError(
            "the workload mixes adapters, and the server has none",
            hint="name them in the backend's [options.adapters], or leave out the workload's adapters",
        )
    names = (endpoint.model, *endpoint.adapters)
    draw = random.Random(f"{seed}/adapters")
    by_session: dict[str, str] = {}
    models = []
    for prompt in prompts:
        name = draw.choice(names)  # drawn for every request, so that a session more does not shift the rest
        models.append(name if prompt.session_id is None else by_session.setdefault(prompt.session_id, name))
    return models
