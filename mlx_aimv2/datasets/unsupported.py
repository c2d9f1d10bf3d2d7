"""Advice for files that are not supported as data: how to convert each kind."""

from __future__ import annotations

from pathlib import Path

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
}
_BY_ENDING = {ending: advice for endings, advice in HINTS.items() for ending in endings.split()}
ENDINGS = frozenset({*_BY_ENDING, ".json", ".txt"})  # of files that show the layout of a folder


def hint(file: Path) -> str | None:
    """How to convert a file that is not a table; None if its kind is unknown."""
    lower = file.name.lower()
    return _BY_ENDING[".tfrecord"] if ".tfrecord" in lower else _BY_ENDING.get(Path(lower).suffix)
