'''A judge behind a server that does everything a server should not

Every behaviour must end in the right reading, in none, or in one sentence, within a bounded time, and never show the
key. With EMOFEEDBACK_RECORD=FOLDER the counts are written to FOLDER/server.json.
'''
import copy
import gzip
import json
import logging
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import ImageStat

sys.path.insert(0, str(Path(__file__).parent.parent))
from served import Server
from typer.testing import CliRunner

import emofeedback.understanding.remote as remote_module
from emofeedback.cli.main import app
from emofeedback.core import Affect
from emofeedback.images import to_pil
from emofeedback.understanding.remote import RemoteJudge, RemoteLVLM
from emofeedback.understanding.wire import hang_up
from emofeedback.runs import write_json

KEY, KEY_ENV = 'sk-very/secret+"1"', 'EMOFEEDBACK_TEST_KEY'
TRUTH = Affect(1.5, -.5) # what every readable answer of this page says
GOOD = '<answer>{"valence": 1.5, "arousal": -0.5}</answer>'
LIMIT, PATIENT = 1., 10. # seconds of a request that is left waiting; of any other, and longer than this hangs
X = torch.full((1, 3, 8, 8), .5)

pytestmark = pytest.mark.usefixtures('one_thread')

def said(text, **message): # body of a chat completion
    return json.dumps(dict(choices=[dict(index=0, message=dict(role='assistant', content=text, **message))])).encode()

def rated(fields:str): return said(f'<answer>{{{fields}}}</answer>')

# ---- what a server can do --------------------------------------------------------------------------------------------

def status(code, body=None, **headers):
    def act(h):
        h.send(code, said(GOOD) if body is None else body, **{k.replace('_', '-'): v for k, v in headers.items()})
    return act

def packed(body, name='gzip', code=200): return status(code, body, Content_Encoding=name)

def raw(data, wait=0.):
    'Bytes as they are; then the connection is held for a while, and closed'
    def act(h):
        h.close_connection = True
        h.wfile.write(data)
        h.wfile.flush()
        time.sleep(wait)
    return act

def reset(h):
    h.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    h.connection.close()
    h.close_connection = True

def endless(part, wait=0., head=b'HTTP/1.1 200 OK\r\n'):
    'The same bytes for ever'
    def act(h):
        h.close_connection = True
        h.wfile.write(head)
        until = time.monotonic()+20
        while time.monotonic()<until:
            h.wfile.write(part)
            time.sleep(wait)
    return act

def http(body, head=b'HTTP/1.1 200 OK\r\n', length=None):
    return head+b'Content-Length: %d\r\n\r\n'%(len(body) if length is None else length)+body

CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'

def chunked(*parts): return CHUNKED+b''.join(b'%x\r\n%s\r\n'%(len(p), p) for p in parts)

def echo(h): h.send(400, json.dumps(dict(error=dict(message=h.headers['Authorization']))).encode())

FINE = said(GOOD)
BOMB = gzip.compress(bytes(100*2**20), 1)
RIGHT = { # what has to be read
    'plain': FINE,
    'created': status(201),
    'several choices': json.dumps(dict(choices=json.loads(FINE)['choices']*3)).encode(),
    'several answers': said(GOOD.replace('1.5', '-2')+' no: '+GOOD),
    'reasons beside it': said(GOOD, reasoning_content='fog'),
    'long reasons beside it': said(GOOD, reasoning_content='fog '*50_000),
    'half a character beside it': said('\ud800'+GOOD),
    'NUL beside it': said('\0'*99+GOOD),
    'a code fence': said(f'```json\n{GOOD[8:-9]}\n```'),
    'single quotes': said(GOOD.replace('"', "'")),
    'gzip': packed(gzip.compress(FINE)),
    'deflate': packed(zlib.compress(FINE), 'deflate'),
    'chunks': raw(chunked(FINE[:9], FINE[9:], b'')),
    'no length': raw(b'HTTP/1.1 200 OK\r\n\r\n'+FINE),
    'a byte order mark': b'\xef\xbb\xbf'+FINE,
    'UTF-16': FINE.decode().encode('utf-16'),
    'early hints': raw(b'HTTP/1.1 103 Early Hints\r\n\r\n'+http(FINE)),
    'a long header': status(200, X_Key='1'*5000),
}
WAITS = '-5', '0', 'nan', 'soon', '', '0.01', 'Wed, 21 Oct 2015 07:28:00 GMT', '1 2', '\x7f'
THEN_RIGHT = { # a fault, then the answer
    **{f'{k}': k for k in (408, 409, 425, 429, 500, 501, 502, 503, 504, 529)},
    **{f'Retry-After {v}': status(429, b'{}', Retry_After=v) for v in WAITS},
    'cut': 'cut',
    'reset': reset,
    'late': raw(b'', 2*LIMIT),
    'HTML': b'<html>busy</html>',
    'empty': b'',
    'overloaded in a 200': b'{"error": {"message": "overloaded"}}',
}
UNREADABLE = {
    'babble': said('a lake'),
    'another language': said('Wertigkeit: 1,5; Erregung: -0,5'),
    'nothing': said(''),
    'null': said(None),
    'refused politely': said(None, refusal='no'),
    'a comma for a point': rated('"valence": 1,5, "arousal": -0,5'),
    'NaN': rated('"valence": NaN, "arousal": -0.5'),
    'Infinity': rated('"valence": Infinity, "arousal": -0.5'),
    '1e999': rated('"valence": 1e999, "arousal": -0.5'),
    'out of range': rated('"valence": 7, "arousal": -0.5'),
    '9999 digits': rated(f'"valence": {"1"*9999}, "arousal": 0'),
    'in quotes': rated('"valence": "1.5", "arousal": "-0.5"'),
    'true': rated('"valence": true, "arousal": false'),
    'one number': rated('"valence": 1.5'),
    'lists': rated('"valence": [1.5], "arousal": [-0.5]'),
    'a key twice': rated('"valence": 2.5, "valence": 1.5, "arousal": -0.5'),
    'cut off': said(GOOD[:-12]),
    'a draft in the thoughts': said('', reasoning_content=f'perhaps {GOOD}, or not'),
    'objects nested': said('<answer>'+'{"a":'*3000+'</answer>'),
    'lists nested': said('['*200_000),
    '1 MB': said(GOOD+' '*2**20),
    'many tags': said('<answer>'*40_000),
    'many braces': said('<answer>'+'{'*400_000),
    'many thoughts': said('<think>'*100_000),
    'many quotes': said('<answer>{'+"{'"*9000+'}</answer>'),
    'many blanks': said('{}'+' '*19_000+'x'),
    'half a character': said('\ud800'),
    'the key': said(f'your key is {KEY}'),
    'the key in reasons': said('x', reasoning=KEY),
    'the key in an answer': said(f'<think>{KEY}</think><answer>{{"valence": "{KEY}"}}</answer>'),
}
AGAIN = 'failed 2 times'
ELSEWHERE = 'http://127.0.0.2:9/v1'
TOO_LONG = 'inf', '1e9', '9'*400, 'Fri, 31 Dec 9999 23:59:59 GMT'
SENTENCE = { # a behaviour, and what is said of it
    **{f'{k}': (status(k, b'no'), 'does not accept') for k in (400, 402, 405, 410, 413, 415, 418, 422, 451)},
    '401': (401, 'missing or wrong'),
    '403': (403, 'may not use'),
    '404': (404, 'no such model'),
    **{f'{k}': (status(k, b'', Location=ELSEWHERE), 'redirects are not') for k in (300, 301, 302, 303, 307, 308)},
    **{f'always {k}': (status(k, b'no'), f'{AGAIN}, at last: it answered {k}') for k in (429, 500, 503, 599)},
    **{f'Retry-After {v}': (status(429, b'{}', Retry_After=v), 'start again later') for v in TOO_LONG},
    **{f'the key in a {k}': (echo if k==400 else k, '.') for k in (400, 404, 409, 500)},
    'the key in HTML': (status(404, f'<b>{KEY}</b>'.encode()), r'<b>\*\*\*</b>'),
}
BYTES = { # as they come; then the connection is closed
    'closed': b'', 'no HTTP': b'hello\r\n\r\n', 'TLS': b'\x15\x03\x01\x00\x02\x02\x46',
    'half a status': b'HTTP/1.', 'half a header': b'HTTP/1.1 200 OK\r\nConten',
    'status 999999': b'HTTP/1.1 999999 OK\r\n\r\n', 'no content': b'HTTP/1.1 204 No Content\r\n\r\n',
    'a cut body': http(FINE, length=5000), 'a short length': http(FINE, length=20),
    'a length below 0': http(b'{}', length=-1), 'two lengths': http(FINE, b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n'),
    'a cut chunk': chunked(FINE)[:-30], 'a chunk of no size': CHUNKED+b'zz\r\n',
}
SHAPES = ('null', '[]', '5', '"x"', 'NaN', '{}', '{"choices": []}', '{"choices": null}', '{"choices": {}}',
          '{"choices": [null]}', '{"choices": [{"message": null}]}', '{"choices": [{"message": []}]}',
          '{"choices": [{"text": "x"}]}', '{"error": "no"}')
BROKEN = { # tried again, and then given up
    **{k: raw(v) for k, v in BYTES.items()},
    **{f'JSON {o}': o.encode() for o in SHAPES},
    'reset': reset,
    'cut': 'cut',
    'hangs': raw(b'', 4*LIMIT),
    'hangs after its header': raw(http(b'', length=9), 4*LIMIT),
    'drips its body': endless(b' ', .1, b'HTTP/1.1 200 OK\r\n\r\n'),
    'drips its header': endless(b'a', .1),
    'header without end': endless(b'a: b\r\n'),
    'body without end': endless(b' '*2**16, head=b'HTTP/1.1 200 OK\r\n\r\n'),
    '5 MB': said(' '*5*2**20),
    'a gzip bomb': packed(BOMB),
    'a gzip bomb in a 500': packed(BOMB, code=500),
    'gzip in gzip': packed(gzip.compress(gzip.compress(FINE)), 'gzip, gzip'),
    'half a gzip': packed(gzip.compress(FINE)[:-12]),
    'no gzip': packed(FINE),
    'brotli': packed(FINE, 'br'),
    'empty': b'',
    'HTML': b'<html>hello</html>',
    'half of it': FINE[:-9],
    'two of it': FINE*2,
    'no UTF-8': b'\xff\xfe\xfd',
    'lists nested': b'['*200_000,
    'objects nested': b'{"choices":'*200_000,
    'a number for a text': said(5),
    'parts for a text': said([dict(type='text', text=GOOD)]),
    'digits for a text': said('@').replace(b'"@"', b'9'*9999),
}
READ, NONE = 'read', 'none' # else: what the sentence says
WAITING = {'late', 'hangs', 'hangs after its header', 'drips its body', 'drips its header', 'header without end',
           'body without end'} # all others have time: a busy machine is no fault of theirs
CASES = [
    *(('right', k, [v], READ) for k, v in RIGHT.items()),
    *(('once', k, [v, FINE], READ) for k, v in THEN_RIGHT.items()),
    *(('unreadable', k, [v], NONE) for k, v in UNREADABLE.items()),
    *(('sentence', k, [v]*2, why) for k, (v, why) in SENTENCE.items()),
    *(('broken', k, [v]*2, AGAIN) for k, v in BROKEN.items()),
]

# ---- what must come of it --------------------------------------------------------------------------------------------

found = Counter(what='behaviours of a server that a judge is asked through', tried=0, right=0, refused=0, uncaught=0,
                invented=0, leaked=0, slowest_s=0.)

@pytest.fixture(scope='module', autouse=True)
def record():
    yield
    folder = os.environ.get('EMOFEEDBACK_RECORD')
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder)/'server.json', dict(found, slowest_s=round(found['slowest_s'], 2)))

@pytest.fixture(autouse=True)
def set_up(monkeypatch):
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr(remote_module, 'random', SimpleNamespace(uniform=lambda a, b: .01))

def remote(server, **how):
    how = dict(key_env=KEY_ENV, workers=1, timeout=LIMIT, retries=1, say=lambda line: None) | how
    return RemoteLVLM(server.address, 'm', **how)

def bounded(work):
    'What `work` returns or raises, and the seconds it took; a `TimeoutError` if it hangs'
    end = []
    def run():
        try: end.append(work())
        except BaseException as e: end.append(e)
    thread, start = threading.Thread(target=run, daemon=True), time.monotonic()
    thread.start()
    thread.join(PATIENT)
    return end[0] if end else None, time.monotonic()-start

def shows_key(*texts): return any(o in t for t in texts for o in (KEY, KEY[:9], json.dumps(KEY)[1:-1]))

@pytest.mark.parametrize(('name', 'faults', 'end'), [c[1:] for c in CASES], ids=[f'{c[0]}: {c[1]}' for c in CASES])
def test_behaviour(name, faults, end, caplog):
    caplog.set_level(logging.DEBUG)
    told = []
    with Server(None, faults) as server:
        judge = RemoteJudge(remote(server, say=told.append, timeout=LIMIT if name in WAITING else PATIENT))
        out, seconds = bounded(lambda: judge.judge(X)[0])
        asked = len(server.seen)
    sentence = isinstance(out, (ValueError, OSError, RuntimeError))
    shown = [repr(out), caplog.text, *told]
    if sentence: shown.append(''.join(traceback.format_exception(out)))
    reading = getattr(out, 'affect', None)
    right, none = reading==TRUTH, not sentence and reading is None and hasattr(out, 'affect')
    found.update(tried=1, right=right, refused=none or sentence, uncaught=not (right or none or sentence),
                 invented=reading is not None and (reading!=TRUTH or end!=READ), leaked=shows_key(*shown))
    found['slowest_s'] = max(found['slowest_s'], seconds)
    assert not shows_key(*shown), shown
    if end==READ: assert right, out
    elif end==NONE: assert none, out
    else: assert sentence and re.search(end, str(out)) and '\n' not in str(out) and len(str(out))<600, out
    assert seconds<PATIENT and asked<=2

# ---- a run that is stopped -------------------------------------------------------------------------------------------

STUCK = dict(hangs=raw(b'', 20), drips=endless(b' ', .1, b'HTTP/1.1 200 OK\r\n\r\n'))

@pytest.mark.parametrize('stuck', STUCK.values(), ids=STUCK)
@pytest.mark.parametrize('workers', [1, 8])
def test_ctrl_c_is_heard_at_once(stuck, workers):
    with Server(None, [stuck]*99) as server:
        judge, pressed = RemoteJudge(remote(server, workers=workers, timeout=60.)), []
        def press():
            while len(server.seen)<workers: time.sleep(.01)
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt): judge.judge(X.repeat(20, 1, 1, 1))
        for t in threading.enumerate():
            if t.name.startswith('ThreadPoolExecutor'): t.join(10) # as Python does when it ends
        assert time.monotonic()-pressed[0]<1 and len(server.seen)==workers

def test_ctrl_c_ends_a_command(tmp_path):
    to_pil(X)[0].save(tmp_path/'p.png')
    with Server(None, [STUCK['drips']]*9) as server:
        served_at = '--judge', 'm', '--judge-endpoint', server.address
        run = subprocess.Popen([sys.executable, '-m', 'emofeedback', 'rate', *[str(tmp_path/'p.png')]*4, *served_at],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic()+60
        while not server.seen and time.monotonic()<until: time.sleep(.02)
        run.send_signal(signal.SIGINT)
        err = run.communicate(timeout=15)[1]
    assert run.returncode==130 and 'Stopped' in err and 'Traceback' not in err, err

def test_one_client_copies_and_forks():
    with Server(None, [FINE]*99) as server:
        lvlm = remote(server)
        for o in (lvlm, copy.deepcopy(lvlm), pickle.loads(pickle.dumps(remote(server, say=print)))):
            assert RemoteJudge(o).judge(X)[0].affect==TRUTH
        assert server.connections==1
        child = os.fork()
        if child==0: # nothing of pytest may run in here
            try: os._exit(RemoteJudge(lvlm).judge(X)[0].affect!=TRUTH)
            except BaseException: os._exit(2)
        assert os.waitpid(child, 0)[1]==0 and server.connections==2
        assert RemoteJudge(lvlm).judge(X)[0].affect==TRUTH and server.connections==2
        hang_up()
        assert RemoteJudge(lvlm).judge(X)[0].affect==TRUTH and server.connections==3

# ---- a server that dies ----------------------------------------------------------------------------------------------

def call(*args): return CliRunner().invoke(app, [str(a) for a in args])

def told(r): return f'{r.output} {r.exception}' # a sentence, or the error that the shell turns into one

def by_brightness(questions, pictures, *how): # readings that differ, at once
    v = ImageStat.Stat(pictures[0][0].convert('L')).mean[0]/64-2
    return [f'<answer>{{"valence": {v:.2f}, "arousal": -0.5, "emotion": "awe"}}</answer>']

@pytest.mark.parametrize('command', [
    ('train-generator', '--updates', 3, '--group-size', 2), ('evaluate-judge', '--limit', 24, '--batch', 2)],
    ids=['train-generator', 'evaluate-judge'])
def test_a_server_that_refuses_everything_ends_the_run(tmp_path, command):
    with Server(by_brightness, [None]*8+[400]*999) as server:
        how = *command, '--judge', 'm', '--judge-endpoint', server.address, '--out', tmp_path/'run'
        r = call(*how)
        assert r.exit_code==1 and re.search(r'of \d+ pictures \d+% could be read', told(r)), told(r)
        assert len(server.seen)<60
        server.faults = []
        r = call(*how)
        assert r.exit_code==0, told(r)

def test_some_refusals_are_no_end():
    with Server(None, [FINE]*20+[400]*12+[FINE]+[400]*12+[FINE]*15) as server:
        judge = RemoteJudge(remote(server, timeout=60.)) # a busy machine is no refusal
        empty = [not j.raw for k in range(6) for j in judge.judge(X.repeat(10, 1, 1, 1))]
    assert empty==[False]*20+[True]*12+[False]+[True]*12+[False]*15
