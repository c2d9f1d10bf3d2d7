"""File name extensions: of images that can be read, and of other files by kind."""

from __future__ import annotations

from ..processing.optional_formats import OPTIONAL_FORMATS

IMAGE_EXTENSIONS = frozenset(
    """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .webp .heic .heics .heif .heifs .hif .avif .avifs .tif .tiff .bmp .dib
    .gif .jp2 .j2k .jpx .jpf .jpc .j2c .ppm .pgm .pbm .pnm .pfm .ico .icns .psd .dds .qoi .sgi .rgb .rgba .bw
    """.split()
)
KINDS = {  # why a file is ignored -> the extensions of such files
    "camera raw": ".cap .eip .gpr .r3d .raw",
    "no decoder": """
        .ai .blp .bpg .cdr .cgm .clip .cur .dcm .dcx .djvu .emf .eps .exr .fit .fits .flc .fli .flif .ftc .ftu .gbr
        .hdp .hdr .icb .im .jbig .jls .jng .jpm .jxr .kra .ktx .ktx2 .mng .msp .ora .palm .pam .pcd .pct .pcx
        .pdf .pict .pdn .procreate .ps .psb .pxr .ras .sun .svg .svgz .tga .vda .vst .vtf .wbmp .wdp .wmf .xbm .xcf
        .xpm .xwd""",
    "video": """
        .3gp .avi .flv .insv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv""",
    "archive": ".7z .bz2 .cbr .cbz .gz .rar .tar .tgz .xz .zip .zst",
}  # fmt: skip
OTHER = "other"
_OPTIONAL = {extension: form for form in OPTIONAL_FORMATS for extension in form.extensions}
_KIND_OF = {extension: kind for kind, extensions in KINDS.items() for extension in extensions.split()}


def extension_of(name: str) -> str:
    """The extension of a file name in lower case, such as `.jpg`; empty if there is none."""
    stem, _, extension = name.rpartition(".")
    return f".{extension.lower()}" if stem else ""


def is_image(name: str) -> bool:
    """Whether a file has the name of an image that can be read here, and is not hidden."""
    extension = extension_of(name)
    is_known = extension in IMAGE_EXTENSIONS or (
        extension in _OPTIONAL and _OPTIONAL[extension].is_readable()
    )
    return is_known and not name.startswith(".")


def kind_of(extension: str) -> str:
    """The kind of a file that is not read: a key of `KINDS`, `OTHER`, or an optional format with its extra."""
    if extension in _OPTIONAL:
        form = _OPTIONAL[extension]
        return f"{form.name}, pip install 'mlx-aimv2[{form.extra}]'"
    return _KIND_OF.get(extension, OTHER)
