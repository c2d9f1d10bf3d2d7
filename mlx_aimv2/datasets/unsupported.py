"""Forms of data that are not read, and how to convert each."""

from __future__ import annotations

from pathlib import Path

from .tree import Tree, name

LISTED = "save each image as a file, and list the files in a CSV file with path and label (or caption)"
BOXES = "boxes are not labels of whole images: " + LISTED
SAVED = f"what `save_to_disk` of Hugging Face wrote: load it with `load_from_disk`, then {LISTED}"
HINTS = {  # endings -> what the file is, and what to do
    ".tar .tgz": "it is a tar archive, as of WebDataset: unpack it (`tar xf`), then make a folder per class, or keep"
    " a .txt with its captions beside each image",
    ".cls": "labels in .cls files (WebDataset) are not read: list the images in a CSV file with path and label",
    ".zip .7z .rar .gz .bz2 .xz .zst": "it is an archive: unpack it",
    ".mdb .lmdb": f"LMDB is not read: {LISTED}",
    ".tfrecord .tfrecords": f"TFRecord is not read: {LISTED}",
    ".arrow": f"it is a part of {SAVED}",
    ".xlsx .xls .xlsm .ods .numbers": "it is a spreadsheet: save its sheet as CSV in UTF-8",
    ".xml": f"annotations in XML (Pascal VOC, LabelImg) are not read: {BOXES}",
    ".yaml .yml": f"YOLO's data files are not read: {BOXES}",
    ".h5 .hdf5 .mat .npy .npz .pt .pth .pkl .pickle": f"arrays are not read: {LISTED}",
    ".db .sqlite .sqlite3": "it is a database: export a table as CSV with path and label (or caption)",
    ".feather .orc .avro": "save it as CSV or Parquet",
}  # fmt: skip
_BY_ENDING = {ending: words for endings, words in HINTS.items() for ending in endings.split()}
ENDINGS = frozenset({*_BY_ENDING, ".json", ".txt"})  # of files that say what a folder is
SHARDED = "-of-"  # in the name of a part: train-00000-of-00008.parquet, train.tfrecord-00000-of-00008


def hint(file: Path) -> str | None:
    """How to convert a file that is no table; None where nothing is known about its kind."""
    lower = file.name.lower()
    if ".tfrecord" in lower:
        return _BY_ENDING[".tfrecord"]
    return _BY_ENDING.get(Path(lower).suffix)


def form_of(tree: Tree, folder: str = "") -> str | None:
    """What a folder is whose form is not read, and what to do; None for any other.

    Args:
        tree: all of the data.
        folder: in it; empty for all of it.
    """
    folders = {name(path).lower(): path for path in tree.subfolders(folder)}
    files = {name(path).lower() for path in tree.others if path.rpartition("/")[0] == folder}
    if {"dataset_info.json", "dataset_dict.json"} & files:
        return f"holds {SAVED}"
    if "data.mdb" in files:
        return f"is an LMDB database, which is not read: {LISTED}"
    if {"jpegimages", "annotations"} <= set(folders):
        return f"is laid out like Pascal VOC: {BOXES}"
    if "annotations" in folders and (captions := _captions(tree, folders["annotations"])):
        return f"is laid out like COCO: name the file of captions, {tree.root / captions}"
    if "annotations" in folders and not tree.below(folders["annotations"]):
        return f"is laid out like COCO: {BOXES}"
    if {"images", "labels"} <= set(folders) and not tree.below(folders["labels"]):
        return f"is laid out like YOLO: {BOXES}"
    return None


def endings_hint(tree: Tree) -> str | None:
    """How to convert the first file below a folder of whose kind something is known."""
    parts = [path for path in tree.others if SHARDED in path and path.lower().endswith(".parquet")]
    if parts:
        return f"{name(parts[0])} is a part of a data set with the images in it: {LISTED}"
    for path in tree.others:
        if words := hint(Path(path)):
            return f"{name(path)}: {words}"
    return None


def _captions(tree: Tree, folder: str) -> str | None:
    names = [
        path for path in tree.others if path.startswith(f"{folder}/") and name(path).startswith("captions_")
    ]
    return next((path for path in names if path.endswith(".json")), None)
