'Runs that are killed, interrupted, damaged or started twice: the result is the same, or one sentence says why not'
import errno
import json
import math
import os
import signal
import time

import pytest
import torch

from emofeedback.runs import (
    Run, kept, load_state, read_jsonl, save_state, stage, stopping, uninterrupted, whole_file, whole_folder, write_json,
    write_jsonl, write_whole)

ODD = dict(empty=b'', cut=b'{"seed": 0, "lr"', list=b'[]', number=b'5', text=b'"x"', null=b'null', bare=b'NaN',
           binary=bytes(range(128, 255)), zeros=bytes(400), deep=b'['*100_000)
odd = pytest.mark.parametrize('content', ODD.values(), ids=ODD)

# ---- files of a run ----

def sentence(error) -> str:
    'The message of an error, which is one line'
    text = str(error.value)
    assert text and '\n' not in text and len(text)<400
    return text

@odd
def test_odd_settings(tmp_path, content):
    (tmp_path/'run.json').write_bytes(content)
    with pytest.raises((ValueError, OSError)) as e: Run(tmp_path, dict(seed=0))
    assert 'run.json' in sentence(e) and 'choose another --out' in sentence(e)
    assert (tmp_path/'run.json').read_bytes()==content, 'a refusal changes nothing'

RESULTS = ODD | dict(no_list=b'{"done": 5, "seconds": {}}', no_names=b'{"done": [[]], "seconds": {}}',
                     no_table=b'{"done": [], "seconds": []}', no_time=b'{"done": [], "seconds": {"a": "x"}}',
                     missing=b'{}')

@pytest.mark.parametrize('content', RESULTS.values(), ids=RESULTS)
def test_odd_results(tmp_path, content):
    with Run(tmp_path, {}): pass
    (tmp_path/'results.json').write_bytes(content)
    with pytest.raises((ValueError, OSError)) as e: Run(tmp_path, {})
    assert 'results.json' in sentence(e) and 'delete it' in sentence(e)
    (tmp_path/'results.json').unlink()
    with Run(tmp_path, {}) as run: assert stage(run, 'one', dict)

@odd
def test_odd_states(tmp_path, content):
    import hashlib
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    with Run(tmp_path, {}) as run:
        save_state(run, 1, dict(step=1))
        for name in (f'state-00000002-{digest}.pt', 'state-00000003-0123456789abcdef.pt', 'state-later.pt'):
            (tmp_path/name).write_bytes(content)
        with pytest.warns(UserWarning, match='is damaged'): assert load_state(run)==dict(step=1)
        assert [f.name for f in tmp_path.glob('state-*')]==[f.name for f in tmp_path.glob('state-00000001-*')]

def test_a_damaged_state_does_not_push_out_a_whole_one(tmp_path):
    with Run(tmp_path, {}) as run:
        for k in (1, 2, 9): save_state(run, k, dict(step=k))
        newest = max(tmp_path.glob('state-*'))
        newest.write_bytes(newest.read_bytes()[:-9])
        with pytest.warns(UserWarning): assert load_state(run)['step']==2
        for k in (3, 4): save_state(run, k, dict(step=k))
        newest = max(tmp_path.glob('state-00000004-*'))
        newest.write_bytes(b'')
        with pytest.warns(UserWarning): assert load_state(run)['step']==3

def flipped(data:bytes) -> bytes: return data[:len(data)//2]+bytes([data[len(data)//2]^1])+data[len(data)//2+1:]

@pytest.mark.parametrize('damage', [*ODD, 'flipped'])
def test_a_damaged_kept_file_is_made_again(tmp_path, damage):
    file, value = tmp_path/'ones.pt', dict(x=torch.ones(5000))
    kept(file, lambda: value)
    whole = file.read_bytes()
    file.write_bytes(flipped(whole) if damage=='flipped' else ODD[damage])
    with pytest.warns(UserWarning, match='is damaged'): found = kept(file, lambda: value)
    assert torch.equal(found['x'], value['x']) and file.read_bytes()==whole

def test_lines_are_json_and_ascii(tmp_path):
    rows = [dict(loss=math.nan, parts=[1., math.inf, -math.inf], said='\ud800 é', n=1), 2]
    write_jsonl(tmp_path/'log.jsonl', rows)
    def refuse(name): raise AssertionError(name)
    lines = (tmp_path/'log.jsonl').read_bytes().decode('ascii').splitlines()
    found = [json.loads(o, parse_constant=refuse) for o in lines]
    assert found==read_jsonl(tmp_path/'log.jsonl')==[dict(loss=None, parts=[1., None, None], said='\ud800 é', n=1), 2]
    write_json(tmp_path/'one.json', rows)
    assert json.loads((tmp_path/'one.json').read_bytes().decode('ascii'), parse_constant=refuse)==found
    with Run(tmp_path/'run', dict(lr=math.nan)): pass
    with Run(tmp_path/'run', dict(lr=math.nan)): pass # knows itself again

@pytest.mark.parametrize('content', [b'{"a": 1}\n{"a"', b'\xff\n', b'{"a": 1}\n\n', b'['*100_000], ids=range(4))
def test_odd_lines_name_their_file(tmp_path, content):
    (tmp_path/'log.jsonl').write_bytes(content)
    with pytest.raises(ValueError) as e: read_jsonl(tmp_path/'log.jsonl')
    assert 'log.jsonl' in sentence(e)

def test_a_failed_write_leaves_nothing_behind(tmp_path):
    write_whole(tmp_path/'a', 'old')
    for error in (OSError(errno.ENOSPC, 'full'), KeyboardInterrupt()):
        with pytest.raises(type(error)), whole_file(tmp_path/'a') as f:
            f.write(b'half')
            raise error
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()]==[('a', 'old')]

def test_the_name_is_on_the_disk_too(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda fd: synced.append(os.readlink(f'/proc/self/fd/{fd}')) or sync(fd))
    write_whole(tmp_path/'a', 'new')
    assert synced==[f'{tmp_path}/a.new', str(tmp_path)]

def test_a_folder_is_whole_or_not_there(tmp_path):
    for text in ('one', 'two'):
        with whole_folder(tmp_path/'final') as new: (new/'a').write_text(text)
        with pytest.raises(KeyError), whole_folder(tmp_path/'final') as new:
            (new/'a').write_text('half')
            raise KeyError
        assert (tmp_path/'final/a').read_text()==text and len(list(tmp_path.rglob('*')))==2

def test_a_start_that_was_killed_does_not_refuse_the_folder(tmp_path):
    for name in ('.lock', 'run.json.new', '.try-k3j4'): (tmp_path/name).touch()
    with Run(tmp_path, dict(seed=0)): pass

# ---- signals ----

def child(work) -> int:
    'Call a function in a fork, which says `r` through a pipe when it is ready; its process id'
    ready, tell = os.pipe()
    if pid := os.fork():
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        return pid
    try:
        with stopping(): work(lambda: os.write(tell, b'r'))
    except KeyboardInterrupt: os._exit(130)
    finally: os._exit(1)

def ended(pid) -> int: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@pytest.mark.parametrize('numbers', [(signal.SIGINT,)*3, (signal.SIGTERM,)*3, (2, 15, 2)], ids=['INT', 'TERM', 'both'])
@pytest.mark.parametrize('moment', ['work', 'write'])
def test_three_signals_lose_nothing(tmp_path, numbers, moment):
    'They come during the work, whose end writes the state, or during that last write'
    def work(ready):
        with Run(tmp_path, {}) as run:
            try:
                if moment=='work':
                    ready()
                    time.sleep(5)
            finally:
                sync = os.fsync
                def slow(fd):
                    if moment=='write': ready()
                    for _ in range(20): time.sleep(.02)
                    sync(fd)
                os.fsync = slow
                save_state(run, 7, dict(step=7))
    pid = child(work)
    for n in numbers:
        os.kill(pid, n)
        time.sleep(.05)
    assert ended(pid)==130
    with Run(tmp_path, {}) as run: assert load_state(run)==dict(step=7)

def test_a_signal_waits_for_the_end_of_a_block():
    before, seen = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted(), uninterrupted():
            for _ in range(3): signal.raise_signal(signal.SIGINT)
            seen.append('done')
        seen.append('not here')
    assert seen==['done'] and signal.getsignal(signal.SIGINT) is before

def test_a_later_signal_is_a_new_wish(monkeypatch):
    'A clean-up that hangs can be stopped'
    monkeypatch.setattr('emofeedback.system.PATIENCE', .1)
    with pytest.raises(KeyboardInterrupt), stopping() as came:
        try: signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt: signal.raise_signal(signal.SIGTERM) # at once: the same wish
        time.sleep(.2)
        signal.raise_signal(signal.SIGINT)
    assert came==[2, 15, 2]

# ---- two processes ----

def test_a_second_process_is_refused_and_a_dead_one_lets_go(tmp_path):
    for k in range(20):
        holder = child(lambda ready: (Run(tmp_path, {}), ready(), time.sleep(60)))
        with pytest.raises(BlockingIOError, match='another process works in'): Run(tmp_path, {})
        os.kill(holder, signal.SIGKILL)
        assert ended(holder)==-signal.SIGKILL
        with Run(tmp_path, {}): pass
