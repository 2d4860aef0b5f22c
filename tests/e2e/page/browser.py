#!/usr/bin/env python3
"""Drives a headless Chromium through chromedriver: one command per call, one session for all of them.

browser.py DIRECTORY COMMAND [ARGUMENT…]; the session's id is kept in DIRECTORY.

start PORT         begins a session with the chromedriver at this port
open URL           loads a page
text SELECTOR      prints the text of an element, as a reader sees it
run SCRIPT         runs a script in the page, and prints what it returns
wait SCRIPT        waits until a script returns something true, for at most 20 s
scheme light|dark  sets the preferred colours
scripts on|off     switches the page's own JavaScript
size WIDTH HEIGHT  sets the size of the window
shot FILE          writes a picture of the whole page
print FILE         writes the page as it is printed, a PDF
console            prints the errors of the console since the last call
axe FILE           prints what the axe-core in FILE finds wrong
"""

import base64
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

AXE = """
const done = arguments[arguments.length - 1];
axe.run({ resultTypes: ['violations'] }).then(
  (found) => done(found.violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${rule.help}: ${node.html} ${node.failureSummary}`))),
  (error) => done([String(error)]),
);
"""


class Browser:
    """A session of chromedriver."""

    def __init__(self, directory):
        self.file = pathlib.Path(directory) / "session.json"
        self.address = json.loads(self.file.read_text())["address"] if self.file.exists() else None

    def ask(self, method, path, body=None):
        """Sends a request of the WebDriver protocol, and returns its value."""
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            sys.exit(error.read().decode(errors="replace").split("\\n#0")[0])

    def start(self, port):
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
        arguments.append(f"--user-data-dir={self.file.parent / 'profile'}")
        options = {"args": [*arguments, "--disable-background-networking", "--no-first-run"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        base = f"http://127.0.0.1:{port}/session"
        self.address = base
        session = self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.file.write_text(json.dumps({"address": f"{base}/{session}"}))

    def devtools(self, command, **parameters):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self.ask("POST", "/url", {"url": url})

    def text(self, selector):
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        print(self.ask("GET", f"/element/{found[ELEMENT]}/text"))

    def evaluate(self, script):
        return self.ask("POST", "/execute/sync", {"script": f"return ({script});", "args": []})

    def run(self, script):
        value = self.evaluate(script)
        print(value if isinstance(value, str) else json.dumps(value))

    def wait(self, script):
        until = time.monotonic() + 20
        while not self.evaluate(script):
            if time.monotonic() > until:
                sys.exit(f"still not after 20 s: {script}\n{self.evaluate('document.body.innerText')}")
            time.sleep(0.1)

    def scheme(self, colours):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])

    def scripts(self, switch):
        self.devtools("Emulation.setScriptExecutionDisabled", value=switch == "off")

    def size(self, width, height):
        self.devtools("Emulation.setDeviceMetricsOverride", width=int(width), height=int(height), deviceScaleFactor=1, mobile=False)

    def shot(self, file):
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        pathlib.Path(file).write_bytes(base64.b64decode(shot["data"]))

    def print(self, file):
        pathlib.Path(file).write_bytes(base64.b64decode(self.ask("POST", "/print")))

    def console(self):
        for entry in self.ask("POST", "/se/log", {"type": "browser"}):
            if entry["level"] != "INFO":
                print(entry["message"])

    def axe(self, file):
        self.ask("POST", "/execute/sync", {"script": pathlib.Path(file).read_text(), "args": []})
        print("\n".join(self.ask("POST", "/execute/async", {"script": AXE, "args": []})))


if __name__ == "__main__":
    getattr(Browser(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
