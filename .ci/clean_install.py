"""Build the release from the last commit, and use it from clean environments in a folder that is not the repository.

    python .ci/clean_install.py [PYTHON ...] [--whole] [--dist FOLDER]

For each interpreter (this one by default): a new environment, the wheel with the extra `quickstart`, `pip check`, the
commands of `COMMANDS`; then the sdist in its place and the same again. `--whole` also trains the quickstart to its end.
Environments take 1 to 6 GB each and are deleted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What must work right after the installation.
COMMANDS = (
    "mmzoo --help",
    "mmzoo --version",
    "mmzoo list",
    "mmzoo describe clip_vit_b32",
    "mmzoo plan clip_vit_b32",
    "mmzoo train trainer.max_steps=5 run.dir=run threads=1",
)
#: Lines of a command's output that are shown.
SHOWN = 3


def main() -> int:
    """Build, install and run; the first failure ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=[sys.executable], help="interpreters")
    parser.add_argument("--whole", action="store_true", help="train the quickstart to its end, from the wheel")
    parser.add_argument("--dist", type=Path, help="where the built files are kept; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clean_install_") as folder:
        place = Path(folder)
        wheel, sdist = build(place / "checkout", (options.dist or place / "dist").resolve())
        for number, python in enumerate(options.pythons):
            print(f"\n== {version(python)}, {python}", flush=True)
            environment = place / f"environment_{number}"
            run([python, "-m", "venv", str(environment)], place)
            install(environment, place, f"{wheel}[quickstart]")
            use(environment, place / f"wheel_{number}", COMMANDS)
            if options.whole:
                use(environment, place / f"whole_{number}", ["mmzoo train"])
            install(environment, place, "--no-deps", "--force-reinstall", str(sdist))
            use(environment, place / f"sdist_{number}", COMMANDS)
            run(["rm", "-rf", str(environment)], place)
    return 0


def build(checkout: Path, dist: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the last commit; the wheel is built from the sdist."""
    checkout.mkdir()
    archive = checkout.with_suffix(".tar")
    subprocess.run(["git", "-C", str(ROOT), "archive", "-o", str(archive), "HEAD"], check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(checkout, filter="data")
    run([sys.executable, "-m", "build", "--outdir", str(dist), str(checkout)], checkout)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    return wheel, sdist


def install(environment: Path, place: Path, *what: str) -> None:
    """`pip install` in an environment, and `pip check` after it."""
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", *what], place)
    run([*pip, "check"], place)
    show = "import multimodal_zoo, torch; print(multimodal_zoo.__file__, multimodal_zoo.__version__, torch.__version__)"
    run([pip[0], "-c", show], place)


def use(environment: Path, folder: Path, commands: tuple[str, ...] | list[str]) -> None:
    """Run commands in an empty folder."""
    folder.mkdir()
    for command in commands:
        program, *words = command.split()
        run([str(environment / "bin" / program), *words], folder)


def run(command: list[str], folder: Path) -> None:
    """Run one command, and print how long it took and the end of what it said.

    Raises:
        SystemExit: it failed.
    """
    print(f"$ {' '.join([Path(command[0]).name, *command[1:]])}", flush=True)
    began = time.monotonic()
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    said = done.stdout.splitlines() + (done.stderr.splitlines() if done.returncode else [])
    kept = said[-SHOWN:] if done.returncode == 0 else said[-40:]
    print("".join(f"    {line}\n" for line in kept) + f"    {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"failed with exit status {done.returncode}")


def version(python: str) -> str:
    """What an interpreter calls itself."""
    return subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
