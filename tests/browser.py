'A headless Chromium that tests drive by the DevTools protocol, and a JupyterLab to open in it'
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

root = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
KEYS = dict(ArrowLeft=37, ArrowUp=38, ArrowRight=39, ArrowDown=40, Enter=13, Tab=9)

class Browser:
    'A page of a headless Chromium'
    def __init__(self, folder, url='about:blank'):
        from websocket import create_connection
        options = ('headless no-sandbox disable-gpu no-first-run disable-background-networking remote-debugging-port=0 '
                   'remote-allow-origins=* window-size=1000,1000').split()
        command = [CHROMIUM, *(f'--{o}' for o in options), f'--user-data-dir={folder}', url]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.until(lambda: (Path(folder)/'DevToolsActivePort').exists() and self.page(folder))
        self.socket, self.n = create_connection(self.page(folder), timeout=60), 0
        # a page that nobody looks at believes it has no focus
        self.call('Emulation.setFocusEmulationEnabled', enabled=True)

    def page(self, folder):
        port = (Path(folder)/'DevToolsActivePort').read_text().split()[0]
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/json/list') as r: targets = json.load(r)
        return next((o['webSocketDebuggerUrl'] for o in targets if o['type']=='page'), None)

    def until(self, true, seconds=60):
        end = time.monotonic()+seconds
        while not (res := true()):
            if time.monotonic()>end: raise TimeoutError
            time.sleep(.05)
        return res

    def call(self, method, **params):
        self.n += 1
        self.socket.send(json.dumps(dict(id=self.n, method=method, params=params)))
        while (said := json.loads(self.socket.recv())).get('id')!=self.n: pass
        assert 'error' not in said, said
        return said['result']

    def js(self, code):
        res = self.call('Runtime.evaluate', expression=code, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in res, res['exceptionDetails']
        return res['result'].get('value')

    def key(self, k):
        code, text = KEYS.get(k, ord(k[-1].upper())), {}
        if len(k)==1: text = dict(text=k)
        if k=='Enter': text = dict(text='\r')
        self.call('Input.dispatchKeyEvent', type='keyDown', key=k, windowsVirtualKeyCode=code, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=k, windowsVirtualKeyCode=code)

    def mouse(self, kind, x, y):
        pressed = dict(button='left', buttons=int(kind!='Released'), clickCount=1)
        self.call('Input.dispatchMouseEvent', type=f'mouse{kind}', x=x, y=y, **pressed)

    def click(self, x, y):
        self.mouse('Pressed', x, y)
        self.mouse('Released', x, y)

    def press(self, selector):
        node = f'document.querySelector({selector!r})'
        self.js(f"{node}.scrollIntoView({{block: 'center'}})")
        self.click(*self.js(f'(b => [b.x+b.width/2, b.y+b.height/2])({node}.getBoundingClientRect())'))

    def at(self, v, a, card='.er-card'): # where on the screen a point of a card's plane is
        point = f'[b.x+b.width*{(v+3)/6}, b.y+b.height*{(3-a)/6}]'
        return self.js(f"(b => {point})(document.querySelector('{card} .er-field').getBoundingClientRect())")

    def screenshot(self, path, **clip):
        'What is in the window, or a part of it: x, y, width, height'
        part = dict(clip=dict(clip, scale=1)) if clip else {}
        Path(path).write_bytes(base64.b64decode(self.call('Page.captureScreenshot', **part)['data']))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()

@contextmanager
def opened(folder):
    'A browser for the length of a `with` block; the test is skipped where there is none'
    if not CHROMIUM: pytest.skip('no Chromium here: apt install chromium')
    pytest.importorskip('websocket', reason='websocket-client drives Chromium: pip install websocket-client')
    b = Browser(folder)
    try: yield b
    finally: b.close()

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def listens(port):
    with socket.socket() as s: return s.connect_ex(('127.0.0.1', port))==0

@contextmanager
def lab(folder, browser):
    'The address of a JupyterLab that serves a folder as `make lab` does, for the length of a `with` block'
    port, own = free_port(), folder/'.jupyter'
    news = own/'settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings'
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = dict(os.environ, JUPYTER_CONFIG_DIR=str(own/'config'), JUPYTER_DATA_DIR=str(own/'data'),
               JUPYTERLAB_SETTINGS_DIR=str(own/'settings'), PYTHONPATH=str(root), HF_HUB_OFFLINE='1',
               OMP_NUM_THREADS='1')
    options = ['--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--IdentityProvider.token=',
               '--ServerApp.disable_check_xsrf=True', '--LabApp.expose_app_in_browser=True',
               f'--ServerApp.root_dir={folder}']
    command = [sys.executable, root/'tools/lab.py', *options]
    server = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        browser.until(lambda: listens(port), 120)
        yield f'http://127.0.0.1:{port}/lab/tree/'
    finally:
        server.terminate()
        server.wait()
