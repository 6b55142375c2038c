"""The local base image: Debian with Python, and the certificates that this machine trusts.

Where images can be pulled, name one by BASE_IMAGE_CPU and nothing is made. The certificates let a
build reach package indexes through whatever stands between; they live in this base only and never in
an image that is shipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

from tests.containers.engine import CannotPrepare, Engine, call, install, state_folder

SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
IMAGE = f"lora-harness-base:{SUITE}"
INCLUDED = "ca-certificates,python3,python3-venv"
CERTIFICATES = "usr/local/share/ca-certificates/build-machine.pem"
CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
LABEL = "io.lora-harness.test-base"


def ensure_base(engine: Engine) -> str:
    """Return the name of a base image, which is made if it is not there. Raises: CannotPrepare."""
    named = os.environ.get("BASE_IMAGE_CPU")
    if named:
        return named
    certificates = ssl.get_default_verify_paths().cafile
    content = Path(certificates).read_bytes() if certificates else b""
    mark = hashlib.sha256(content + INCLUDED.encode()).hexdigest()
    label = engine.run(
        "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', IMAGE
    )
    if label.stdout.strip() == mark:
        return IMAGE
    _import(engine, _tarball(), content, mark)
    return IMAGE


def _import(engine: Engine, tarball: Path, certificates: bytes, mark: str) -> None:
    """Import the tarball with the certificates added to it, and the variables that name them."""
    changes = ["--change", f"LABEL {LABEL}={mark}"]
    with tempfile.TemporaryDirectory() as folder:
        if certificates:
            copy = Path(folder, "base.tar")
            shutil.copyfile(tarball, copy)
            file = Path(folder, CERTIFICATES)
            file.parent.mkdir(parents=True)
            file.write_bytes(certificates)
            file.chmod(0o644)
            words = ["tar", "--append", "--owner=0", "--group=0", "--file", str(copy)]
            call(
                [*words, "--directory", folder, f"./{CERTIFICATES}"], what="adding the certificates"
            )
            tarball = copy
            pairs = " ".join(f"{name}=/{CERTIFICATES}" for name in CERTIFICATE_VARIABLES)
            changes += ["--change", f"ENV {pairs}"]
        engine.docker("import", *changes, str(tarball), IMAGE, what="importing the base image")


def _tarball() -> Path:
    """The base's files as a tarball, made once; without anything of this machine."""
    path = state_folder() / f"base-{SUITE}.tar"
    if path.is_file():
        return path
    install(["debootstrap"])
    if os.geteuid() != 0:
        raise CannotPrepare(
            "making a base image with debootstrap needs root; or set BASE_IMAGE_CPU"
        )
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "debootstrap",
            "--variant=minbase",
            f"--include={INCLUDED}",
            SUITE,
            folder,
            *_mirror(),
        ]
        call(words, what="debootstrap")
        for name in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder, name))
            Path(folder, name, "partial").mkdir(parents=True)
        part = path.with_suffix(".part")
        call(
            ["tar", "--create", "--file", str(part), "--directory", folder, "."],
            what="packing the base",
        )
        part.replace(path)
    return path


def _mirror() -> list[str]:
    """Where this machine gets the suite from, if it does; debootstrap has a default of its own."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(SITE)",
        f"Codename: {SUITE}",
        "Origin: Debian",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[:1]
