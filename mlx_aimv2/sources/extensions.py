"""File name extensions: of images that can be read, and of other files by kind."""

from __future__ import annotations

IMAGE_EXTENSIONS = frozenset(
    """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .webp .heic .heics .heif .heifs .hif .avif .avifs .tif .tiff .bmp .dib
    .gif .jp2 .j2k .jpx .jpf .jpc .j2c .ppm .pgm .pbm .pnm .pfm .ico .icns .psd .dds .qoi .sgi .rgb .rgba .bw
    """.split()
)
KINDS = {  # why a file is ignored -> the extensions of such files
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
_KIND_OF = {extension: kind for kind, extensions in KINDS.items() for extension in extensions.split()}


def extension_of(name: str) -> str:
    """The extension of a file name in lower case, such as `.jpg`; empty if there is none."""
    stem, _, extension = name.rpartition(".")
    return f".{extension.lower()}" if stem else ""


def is_image(name: str) -> bool:
    """Whether a file has the name of an image, and is not hidden."""
    return not name.startswith(".") and extension_of(name) in IMAGE_EXTENSIONS


def kind_of(extension: str) -> str:
    """The kind of a file that is not an image: a key of `KINDS`, or `OTHER`."""
    return _KIND_OF.get(extension, OTHER)
