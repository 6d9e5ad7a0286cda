"""Makes the documents say what the code does now.

python -m docs.refresh                 # tables and commands of all pages; the tour trains its model: some minutes
python -m docs.refresh README.md       # of these pages alone
python -m docs.refresh --tables        # the tables of docs/http.md alone: a second
python -m docs.refresh --pictures      # docs/images/page-*.png; needs Chromium
python -m docs.refresh --translations  # blocks of the translated pages, and the mark that their prose is up to date: a second
"""

import argparse
import sys
import tempfile
from pathlib import Path

from docs.tools.examples import examples, with_outputs
from docs.tools.fields import Reference
from docs.tools.openapi import openapi_document
from docs.tools.running import ROOT, CommandFailed, Session
from docs.tools.screenshots import NoBrowser, take_pictures
from docs.tools.settings import fill_settings
from docs.tools.translations import TRANSLATIONS, Page, TranslationError, stamped, updated

REFERENCE = "docs/http.md"
TOUR = "docs/tour.md"
PAGES = ("README.md", REFERENCE, TOUR)


def refresh_commands(page: Path, session: Session) -> int:
    """Run a page's commands in the session and put what they say into the page; how many there are. Raises CommandFailed."""
    text = page.read_text("utf-8")
    outputs = {}
    for example in examples(text):
        print(f"$ {example.command.splitlines()[0][:100]}", file=sys.stderr)
        outputs[example] = session.run(example.command)
    page.write_text(with_outputs(text, outputs), "utf-8")
    return len(outputs)


def refresh_tables(page: Path) -> None:
    """Make the reference's tables anew."""
    page.write_text(fresh_tables(page.read_text("utf-8")), "utf-8")


def fresh_tables(text: str) -> str:
    """The reference's text with its tables as they should be."""
    return fill_settings(Reference(openapi_document()).fill(text))


def refresh_translations(stamp: bool) -> None:
    """Put the originals' blocks and generated sections into the translations. `stamp`: also mark that each says what the
    original's prose says now, which no program can know. Raises TranslationError."""
    for name, original in TRANSLATIONS.items():
        source, text = (Page(page, (ROOT / page).read_text("utf-8")) for page in (original, name))
        fresh = updated(text, source)
        if stamp:
            fresh = stamped(Page(name, fresh), source)
        (ROOT / name).write_text(fresh, "utf-8")
        print(f"{name}: its blocks are those of {original}" + (", its prose marked as up to date" if stamp else ""))


def serve_bundled(session: Session, folder: Path) -> None:
    """The server of README.md and of the reference: the bundled models, and beside their adapters one that classifies, which
    it does not know of yet."""
    sys.path.append(str(ROOT / "tests" / "support"))
    from bundled_server import add_reviews, bundled_adapters  # pyright: ignore[reportMissingImports]

    adapters = bundled_adapters(folder / "adapters")
    session.run(f"homegrown serve --threads 1 --adapters-dir {adapters}")
    add_reviews(adapters, folder)


def main() -> None:
    """What the command line asks for."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)}; by default all")
    options.add_argument("--tables", action="store_true", help=f"only the tables of {REFERENCE}")
    options.add_argument(
        "--translations",
        action="store_true",
        help="only the translations: blocks from the originals, and a mark that you have brought their prose up to date",
    )
    options.add_argument("--pictures", action="store_true", help="only the pictures of the page, of the bundled models")
    given = options.parse_args()
    if unknown := set(given.pages) - set(PAGES):
        options.error(
            f"there are no commands to refresh in {', '.join(sorted(unknown))}; the pages are {', '.join(PAGES)}"
        )
    if given.translations:
        _refresh_translations_or_exit(stamp=True)
        return
    if given.pictures:
        refresh_pictures()
        return
    refresh_tables(ROOT / REFERENCE)
    for name in () if given.tables else given.pages or PAGES:
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch) / "work"
            work.mkdir()
            try:
                with Session(work) as session:
                    if name != TOUR:
                        serve_bundled(session, Path(scratch))
                    print(f"{name}: {refresh_commands(ROOT / name, session)} commands")
            except CommandFailed as error:
                sys.exit(f"{name}: {error}")
    if not given.tables:
        _refresh_translations_or_exit(stamp=False)


def refresh_pictures() -> None:
    """Take those of the page anew."""
    with tempfile.TemporaryDirectory() as scratch, Session(Path(scratch)) as session:
        session.run("homegrown serve")
        try:
            for path in take_pictures(session.address, ROOT / "docs" / "images"):
                print(path.relative_to(ROOT))
        except NoBrowser as error:
            sys.exit(str(error))


def _refresh_translations_or_exit(stamp: bool) -> None:
    try:
        refresh_translations(stamp)
    except TranslationError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
