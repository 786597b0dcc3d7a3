"""An HTML page that stands alone: style and script inside, nothing fetched, and a policy that forbids it to.

The policy is for the day on which something slips past the escaping: whatever a model wrote into its response, a
browser will neither run it nor load anything for it.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template

HERE = Path(__file__).parent


def document(title: str, subtitle: str, body: str, style: str = "", script: str = "", data: str = "") -> str:
    """Return the whole page. title, subtitle: plain text. body, style, script: as they shall stand. data: JSON for the
    script, escaped by ``samples.to_json``."""
    scripts = f'<script type="application/json" id="data">{data}</script>\n' if data else ""
    # Styles in the page itself may load nothing: the first rule holds for them too.
    allowed = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    if script:
        # By its hash this one script may run, and no other.
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed.append(f"script-src 'sha256-{digest}'")
        scripts += f"<script>{script}</script>"
    return Template(text_of("page.html")).substitute(
        policy="; ".join(allowed),
        title=escape(title),
        subtitle=escape(subtitle),
        style=text_of("page.css") + style,
        body=body,
        scripts=scripts,
    )


def text_of(name: str) -> str:
    """Return the text of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")
