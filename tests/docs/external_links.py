"""`python -m tests.docs.external_links [--ask]`: the pages' links to elsewhere, and with `--ask` what each answers."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

from tests.docs.blocks import ROOT, links_of, pages

SECONDS = 20


def main() -> int:
    links = {link: page for page in pages() for link in links_of(page) if link.startswith("http")}
    faults = 0
    for link, page in sorted(links.items()):
        said = answer_of(link) if "--ask" in sys.argv else ""
        faults += said not in ("", "200")
        print(f"{said:5} {link}  {page.relative_to(ROOT)}")
    return 1 if faults else 0


def answer_of(link: str) -> str:
    request = urllib.request.Request(link, headers={"user-agent": "Mozilla/5.0"}, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return str(reply.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
