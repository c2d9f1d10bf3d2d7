"""JSON objects that hold a whole data set: COCO's captions, and Karpathy's splits of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from ..errors import InputError
from .columns import ABSENT, CAPTION, IMAGE, SPLIT, NoColumnError

Fields = Iterator[tuple[str, Mapping[str, Any]]]
Objects = list[dict[str, Any]]
REST = {"restval": "train"}  # how Karpathy's splits call what is trained on besides `train`


def json_records(name: str, data: object, value: str) -> Fields:
    """A row for each image of a JSON object.

    Args:
        name: of the file.
        data: what it holds.
        value: what is read of each image: `LABEL` or `CAPTION`.

    Raises:
        InputError: it is none of the forms that are known.
    """
    images = data.get("images") if isinstance(data, dict) else None
    annotations = data.get("annotations") if isinstance(data, dict) else None
    if _are_objects(images) and _are_objects(annotations):
        yield from _coco(name, images, annotations, value)
    elif _are_objects(images) and all(_are_objects(image.get("sentences")) for image in images):
        yield from _karpathy(name, images, value)
    else:
        raise InputError(
            f"{name} is no list of objects, and none of COCO's or Karpathy's files with captions: write an object for"
            f" each image, with path and {value}"
        )


def _coco(name: str, images: Objects, annotations: Objects, value: str) -> Fields:
    captions: dict[Any, list[Any]] = {}
    for number, each in enumerate(annotations, 1):
        if CAPTION not in each or "image_id" not in each:
            raise InputError(
                f"{name}, annotation {number}: no caption: of COCO's files only captions_*.json are read; for labels,"
                " write a table with path and label (several separated by ;)"
            )
        captions.setdefault(each["image_id"], []).append(each[CAPTION])
    if value != CAPTION:
        raise NoColumnError(f"{name} holds captions and no labels: use --task contrastive")
    for image in images:
        where = f"{name}, image {image.get('id')}"
        yield where, {IMAGE: image.get("file_name"), CAPTION: captions.get(image.get("id"), ABSENT)}


def _karpathy(name: str, images: Objects, value: str) -> Fields:
    if value != CAPTION:
        raise NoColumnError(f"{name} holds captions and no labels: use --task contrastive")
    for number, image in enumerate(images, 1):
        folder, file = image.get("filepath"), image.get("filename")
        path = f"{folder}/{file}" if folder and file else file
        split = image.get(SPLIT)
        texts = [sentence.get("raw") for sentence in image["sentences"]]
        yield f"{name}, image {number}", {IMAGE: path, CAPTION: texts, SPLIT: REST.get(str(split), split)}


def _are_objects(values: object) -> TypeGuard[Objects]:
    return isinstance(values, list) and bool(values) and all(isinstance(value, dict) for value in values)
