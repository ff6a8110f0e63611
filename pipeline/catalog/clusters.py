"""Clusters of the catalog: where shards are extracted."""

import re
from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dynaprop.pipeline.catalog.entry import Entry
from dynaprop.pipeline.catalog.fields import Positive, expand_variables, refuse
from dynaprop.pipeline.errors import UsageError

INLINE = "inline"
"""The cluster that is none."""


class ClusterSpec(Entry):
    """Where shards are extracted: ``inline``, in the command's own process, or by the workers of a Dask cluster."""

    noun: ClassVar[str] = "cluster"

    processes: Annotated[int, Field(ge=1, le=4096)] | None = None
    """So many worker processes on this machine."""
    address: str | None = None
    """Of a running Dask scheduler, such as ``tcp://10.0.0.1:8786``; may hold environment variables."""
    cuda: bool = False
    """A worker for each GPU of this machine."""
    resources: dict[str, Positive] | None = None
    """What the task of a shard takes of its worker; by default one GPU where ``cuda``, else nothing."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "ClusterSpec":
        kinds = [key for key in ("processes", "address", "cuda") if getattr(self, key)]
        if self.name == INLINE and self.model_fields_set - {"name", "source"}:
            raise refuse("is this process itself and has no keys; give the cluster another name")
        if self.name != INLINE and len(kinds) != 1:
            raise refuse(f"needs one of processes, address and cuda{', not ' + ' and '.join(kinds) if kinds else ''}")
        return self

    def scheduler(self) -> str | None:
        """The address with the environment's values, looked at only where the cluster is used.

        Raises:
            UsageError: a variable is not set, or it is no address.
        """
        if self.address is None:
            return None
        try:
            address = expand_variables(self.address)
        except PydanticCustomError as error:
            raise UsageError(f"{self.place('address')}: {error}") from None
        if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://[^\s/@]+:[0-9]+", address):
            raise UsageError(
                f"{self.place('address')}: should be that of a Dask scheduler, such as tcp://10.0.0.1:8786, "
                f"not {address!r}"
            )
        return address
