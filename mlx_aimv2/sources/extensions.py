"""File name endings: those of images that can be read, and what all others are left out as."""

from __future__ import annotations

IMAGE_ENDINGS = frozenset(
    """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .webp .heic .heics .heif .heifs .hif .avif .avifs .tif .tiff .bmp .dib
    .gif .jp2 .j2k .jpx .jpf .jpc .j2c .ppm .pgm .pbm .pnm .pfm .ico .icns .psd .dds .qoi .sgi .rgb .rgba .bw
    """.split()
)
KINDS = {  # why files are left out -> the endings of such files
    "camera raw": """
        .3fr .ari .arw .bay .cap .cr2 .cr3 .crw .dcr .dng .eip .erf .fff .gpr .iiq .k25 .kdc .mdc .mef .mos .mrw .nef
        .nrw .orf .ori .pef .ptx .r3d .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f""",
    "no decoder": """
        .ai .blp .bpg .cdr .cgm .clip .cur .dcm .dcx .djvu .emf .eps .exr .fit .fits .flc .fli .flif .ftc .ftu .gbr
        .hdp .hdr .icb .im .jbig .jls .jng .jpm .jxl .jxr .kra .ktx .ktx2 .mng .msp .ora .palm .pam .pcd .pct .pcx
        .pdf .pict .pdn .procreate .ps .psb .pxr .ras .sun .svg .svgz .tga .vda .vst .vtf .wbmp .wdp .wmf .xbm .xcf
        .xpm .xwd""",
    "video": """
        .3gp .avi .flv .insv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv""",
    "archive": ".7z .bz2 .cbr .cbz .gz .rar .tar .tgz .xz .zip .zst",
}  # fmt: skip
OTHER = "other"
_KIND_OF = {ending: kind for kind, endings in KINDS.items() for ending in endings.split()}


def ending_of(name: str) -> str:
    """The ending of a file name in small letters, such as `.jpg`; empty where there is none."""
    stem, _, ending = name.rpartition(".")
    return f".{ending.lower()}" if stem else ""


def is_image(name: str) -> bool:
    """Whether a file is called like an image that is not hidden."""
    return not name.startswith(".") and ending_of(name) in IMAGE_ENDINGS


def kind_of(ending: str) -> str:
    """Why a file that ends so is no image: a key of `KINDS`, or `OTHER`."""
    return _KIND_OF.get(ending, OTHER)
