"""To and from rsatoolbox: its objects by their dictionary, its files by h5py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inscape.errors import MissingExtraError, ResultError, StoreCorruptError, require
from inscape.rsa.rdms import ID, SUBJECT, RDMs

# How others call what is here, where the name differs.
_FROM = {"squared euclidean": "squared_euclidean", "Mahalanobis": "mahalanobis", "squared mahalanobis": "mahalanobis"}


def as_rsatoolbox(rdms: RDMs) -> Any:
    """A `rsatoolbox.rdm.RDMs`."""
    try:
        from rsatoolbox.rdm import RDMs as Theirs  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            "to_rsatoolbox() needs the package 'rsatoolbox', which is not installed. Run: pip install rsatoolbox"
        ) from error
    return Theirs(**_dictionary(rdms))


def of_dictionary(given: Mapping[str, Any]) -> RDMs:
    """From the dictionary of a `rsatoolbox.rdm.RDMs` (`to_dict()`).

    Raises:
        ResultError: there are no dissimilarities in it.
    """
    if "dissimilarities" not in given:
        raise ResultError(f"this holds no dissimilarities but {sorted(given)[:6]}; give a rsatoolbox.rdm.RDMs")
    patterns = {str(name): _listed(column) for name, column in (given.get("pattern_descriptors") or {}).items()}
    subjects = {str(name): _listed(column) for name, column in (given.get("rdm_descriptors") or {}).items()}
    names = next((patterns[name] for name in (ID, "conds", "conditions", "index") if name in patterns), None)
    whose = next((subjects[name] for name in (SUBJECT, "name", "index") if name in subjects), None)
    distance = given.get("dissimilarity_measure")
    distance = distance.decode() if isinstance(distance, bytes) else distance if isinstance(distance, str) else ""
    return RDMs(
        given["dissimilarities"],
        patterns if ID in patterns else {ID: [str(one) for one in names], **patterns} if names is not None else patterns,
        subjects if SUBJECT in subjects else {SUBJECT: [str(one) for one in whose], **subjects} if whose is not None else subjects,
        distance=_FROM.get(distance, distance),
    )


def write_rsatoolbox(rdms: RDMs, path: str | os.PathLike[str]) -> Path:
    """A file that `rsatoolbox.rdm.load_rdm` reads."""
    require("h5py", "brain", "a file of rsatoolbox")
    import h5py  # pyright: ignore[reportMissingImports]

    file = Path(path)
    if file.suffix not in (".h5", ".hdf5"):
        raise ResultError(f"a file of rsatoolbox is called .h5 or .hdf5, not {file.name!r}")
    part = file.with_name(file.name + ".part")
    with h5py.File(part, "w") as out:
        out.attrs["rsatoolbox_version"] = "0.3.2"
        for name, value in _dictionary(rdms).items():
            if isinstance(value, dict):
                group = out.create_group(name)
                for key, column in value.items():
                    array = np.array(column)
                    group[key] = array.astype("S") if array.dtype.kind == "U" else array
            elif isinstance(value, str):
                out.attrs[name] = value
            else:
                out[name] = value
    os.replace(part, file)
    return file


def read_rsatoolbox(path: str | os.PathLike[str]) -> RDMs:
    """A file that `RDMs.save` of rsatoolbox wrote as HDF5.

    Raises:
        StoreCorruptError: it cannot be read.
    """
    require("h5py", "brain", "a file of rsatoolbox")
    import h5py  # pyright: ignore[reportMissingImports]

    try:
        with h5py.File(path, "r") as file:
            given: dict[str, Any] = dict(file.attrs)
            for name, item in file.items():
                if isinstance(item, h5py.Group):
                    given[name] = {key: _column(column) for key, column in item.items()} | dict(item.attrs)
                elif item.shape is not None:
                    given[name] = item[()]
    except OSError as error:
        raise StoreCorruptError(f"{path} cannot be read as a file of rsatoolbox: {error}") from error
    return of_dictionary(given)


def _column(item: Any) -> Any:
    """A data set, or a list that was kept as a group with numbers for names."""
    if hasattr(item, "items"):
        return [item[key][()] for key in sorted(item, key=int)]
    return item[()]


def _listed(column: Any) -> list[Any]:
    values = np.asarray(column).tolist() if not isinstance(column, list) else column
    return [one.decode() if isinstance(one, bytes) else one for one in (values if isinstance(values, list) else [values])]


def _dictionary(rdms: RDMs) -> dict[str, Any]:
    return {
        "dissimilarities": rdms.values.copy(),
        "descriptors": {},
        "rdm_descriptors": {name: column.tolist() for name, column in rdms.subjects.items()},
        "pattern_descriptors": {name: column.tolist() for name, column in rdms.stimuli.items()},
        "dissimilarity_measure": rdms.distance,
    }
