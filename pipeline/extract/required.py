"""Whether the features that a training needs are there."""

from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.extract.plan import shards_to_do
from dynaprop.pipeline.store.names import cached_key, open_store, store_path
from dynaprop.pipeline.workspace import Workspace


def require_features(workspace: Workspace) -> dict[str, str]:
    """The feature keys of both branches, once it is known that all their features are there.

    Raises:
        DynapropError: they are not; with what makes them.
    """
    nothing = _lack(workspace, f"{workspace.dataset.name!r} has no features yet")
    if not store_path(workspace.dataset, workspace.home).exists():
        raise nothing
    store = open_store(workspace.dataset, workspace.home, read_only=True)
    keys = {}
    for branch, backbone in (("student", workspace.student), ("teacher", workspace.teacher)):
        key = cached_key(backbone, store)
        if key is None:
            raise nothing
        keys[branch] = key
    manifest = store.manifest()
    shards = manifest.shards()
    undone = shards_to_do(store, manifest, list(keys.values()))
    if undone or not shards:
        problem = f"{len(undone)} of {len(shards)} shards of {workspace.dataset.name!r} have no features yet"
        raise _lack(workspace, problem)
    return keys


def _lack(workspace: Workspace, problem: str) -> DynapropError:
    return DynapropError(problem, remedy="extract", target=workspace.target, options={"recipe": workspace.recipe.name})
