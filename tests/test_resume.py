'Runs that are killed, interrupted, damaged or started twice: the result is the same, or one sentence says why not'
import errno
import json
import math
import os
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import emofeedback
from emofeedback.cli.main import app
from emofeedback.core import Affect
from emofeedback.disk.checkpoints import is_whole, newest_checkpoint
from emofeedback.feedback.advisers import Advised
from emofeedback.feedback.consequences import Consequences, drawn_situations
from emofeedback.feedback.own_best import OwnBest, own_best
from emofeedback.generation.prompts import scene_sampler
from emofeedback.mini.advice import exchanged
from emofeedback.mini.models import bundled, tiny_judge
from emofeedback.pipeline import EmoFeedback
from emofeedback.runs import (
    Run, kept, load_state, lock_file, read_jsonl, save_state, stage, stopping, uninterrupted, whole_file, whole_folder,
    write_json, write_jsonl, write_whole)
from emofeedback.system import quiet
from emofeedback.understanding.grpo import GRPOSettings, grpo, rows_for_grpo
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.understanding.questions import Rate
from emofeedback.understanding.rewards import completion_text
from emofeedback.understanding.sft import Example, sft

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
                     no_table=b'{"done": [], "seconds": []}', no_time=b'{"done": [], "seconds": {"a": "x"}}')

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

# ---- a judge ----

TINY = GRPOSettings(steps=7, pictures=2, group_size=2, save_every=2, max_new_tokens=8, lr=.01, weights=(1.,))
EPOCH = 3 # updates

def six_rows():
    x = torch.rand(2*EPOCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return rows_for_grpo(x, [Affect(1, 0)]*2*EPOCH, ['awe']*2*EPOCH)

def varied(completions, **columns) -> list[float]: return [len(set(completion_text(o)))/8 for o in completions]

def judge_run(out, settings=TINY, rewards=(varied,), evaluate=lambda model: {}, **how):
    how = dict(evaluate=evaluate, every=1, progress=False) | how
    with quiet(): return grpo(*tiny_judge(seed=0), six_rows(), out, settings, rewards, **how)

def result(out) -> dict: # what must be the same bytes
    return {p.name: p.read_bytes() for p in (out/'log.jsonl', *(out/'final').iterdir())}

@pytest.fixture(scope='module')
def whole_run(one_thread, tmp_path_factory):
    'A run that nothing happened to'
    out = tmp_path_factory.mktemp('judge')/'run'
    judge_run(out)
    assert {f'checkpoint-{k}' for k in (4, 6)}<={p.name for p in out.iterdir()}
    return out

def killed(work, at) -> None:
    'Do work in a fork, which kills itself as soon as `at` is true'
    if pid := os.fork():
        assert ended(pid)==-signal.SIGKILL
        return
    try: work(lambda *args: os.kill(os.getpid(), 9) if at(*args) else {})
    finally: os._exit(1)

@pytest.mark.parametrize('steps', [1, 5, 7])
def test_killed_between_two_updates(whole_run, tmp_path, steps):
    'Update 5 is in the second epoch, and after 7 nothing is left to do but to save'
    out, seen = tmp_path/'run', []
    killed(lambda die: judge_run(out, evaluate=die), lambda model: seen.append(1) or len(seen)==steps+1)
    assert not (out/'final').exists()
    judge_run(out)
    assert result(out)==result(whole_run)

@pytest.mark.parametrize('name', ['adapter_model.safetensors', 'trainer_state.json', 'digests.json'])
def test_killed_inside_a_checkpoint(whole_run, tmp_path, name):
    'As soon as the fourth update opens a file'
    out = tmp_path/'run'
    def work(die): # what a program opens is told to an audit hook, which stays for the life of the fork
        sys.addaudithook(lambda event, args: die(args) if event=='open' else None)
        judge_run(out)
    killed(work, lambda args: str(out/'checkpoint-4'/name) in str(args[0]))
    assert not is_whole(out/'checkpoint-4')
    judge_run(out)
    assert result(out)==result(whole_run)

@pytest.fixture(scope='module')
def cut_run(one_thread, tmp_path_factory):
    'A run that was killed in its sixth update'
    out, seen = tmp_path_factory.mktemp('cut')/'run', []
    killed(lambda die: judge_run(out, TINY_OFTEN, evaluate=die), lambda model: seen.append(1) or len(seen)==7)
    return out

TINY_OFTEN = replace(TINY, save_every=1)
DAMAGES = dict(cut=lambda f: f.write_bytes(f.read_bytes()[:f.stat().st_size//2]), empty=lambda f: f.write_bytes(b''),
               missing=lambda f: f.unlink(), flipped=lambda f: f.write_bytes(flipped(f.read_bytes())))

@pytest.mark.parametrize('damage', DAMAGES)
def test_any_damage_is_seen(cut_run, tmp_path, damage):
    files = [p.name for p in (cut_run/'checkpoint-5').iterdir()]
    assert {'adapter_model.safetensors', 'optimizer.pt', 'scheduler.pt', 'rng_state.pth'}<={*files}
    for name in files:
        shutil.copytree(cut_run, tmp_path/name)
        DAMAGES[damage](tmp_path/name/'checkpoint-5'/name)
        with pytest.warns(UserWarning, match='checkpoint-5 is damaged'): found = newest_checkpoint(tmp_path/name)
        assert found==str(tmp_path/name/'checkpoint-4') and not (tmp_path/name/'checkpoint-5').exists()

TORN = ('adapter_model.safetensors', 'cut'), ('adapter_config.json', 'empty'), ('optimizer.pt', 'missing'), \
    ('optimizer.pt', 'cut'), ('scheduler.pt', 'empty'), ('rng_state.pth', 'flipped'), ('trainer_state.json', 'missing')

@pytest.mark.parametrize('name,damage', TORN)
def test_goes_on_before_a_torn_checkpoint(whole_run, cut_run, tmp_path, name, damage):
    out = tmp_path/'run'
    shutil.copytree(cut_run, out)
    DAMAGES[damage](out/'checkpoint-5'/name)
    with pytest.warns(UserWarning, match='checkpoint-5 is damaged'): judge_run(out, TINY_OFTEN)
    assert result(out)==result(whole_run)

def test_a_finished_run_does_nothing_more(whole_run):
    said, before = [], {p: p.read_bytes() for p in whole_run.rglob('*') if p.is_file()}
    log = judge_run(whole_run, say=said.append)
    assert before=={p: p.read_bytes() for p in whole_run.rglob('*') if p.is_file()}
    assert max(o['step'] for o in log)==7 and 'a finished run of 7 updates' in said[0] and 'another folder' in said[0]
    assert all('train_loss' not in o and 'step_time' not in o for o in log)
    rates = [o['learning_rate'] for o in log if 'reward' in o]
    assert len(rates)==7 and rates[5]>rates[6]>0

def test_what_is_given_away_tells_no_folder(whole_run):
    files = {p.name: p.read_bytes() for p in (whole_run/'final').iterdir()}
    assert 'training_args.bin' not in files and {'adapter_model.safetensors', 'adapter_config.json'}<={*files}
    here = [str(whole_run), str(Path(emofeedback.__file__).parent), str(Path.home())]
    assert not [(k, o) for k,data in files.items() for o in here if o.encode() in data]

def test_nothing_to_learn_is_a_failure(one_thread, tmp_path):
    def equal(completions, **columns): return [.5]*len(completions)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='nothing was learned in 3 updates'):
            judge_run(tmp_path, replace(TINY, steps=3), [equal])
        assert not (tmp_path/'final').exists() and newest_checkpoint(tmp_path).endswith('checkpoint-2')

def test_weights_that_are_not_finite_are_a_failure(one_thread, tmp_path):
    with pytest.raises(RuntimeError, match='weights are not finite') as e:
        judge_run(tmp_path, replace(TINY, lr=math.inf, save_every=1))
    assert '--set lr=' in sentence(e) and not (tmp_path/'final').exists()

def test_a_cold_start_replaces_its_files_whole(one_thread, tmp_path, monkeypatch):
    'A finished run called again, and killed while it saves its model, still has the model'
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    def examples(rng, n): return [Example(Rate().ask(), [x[i]], 'calm') for i in rng.integers(0, 4, n)]
    def train(): sft(*tiny_judge(seed=0), examples, tmp_path, updates=2, batch_size=2, warmup=1, progress=False)
    train()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert {'model.safetensors', 'config.json'}<={*before}
    def at(event, args): return event=='open' and 'tokenizer_config.json' in str(args[0]) and args[1]=='w'
    def work(die):
        sys.addaudithook(lambda event, args: die(event, args))
        train()
    killed(work, at)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}==before
    train()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()}==before

def test_a_cold_start_does_not_save_ruined_weights(one_thread, tmp_path):
    def examples(rng, n): return [Example(Rate().ask(), [torch.zeros(3, 32, 32)], 'calm')]*n
    with pytest.raises(RuntimeError, match='weights are not finite'):
        sft(*tiny_judge(seed=0), examples, tmp_path, updates=1, batch_size=1, lr=math.inf, warmup=1, progress=False)
    assert not list(tmp_path.glob('state-*'))

# ---- an adviser that learns from its own advice ----

def adviser_run(out, at=lambda moment: {}) -> dict: # what must be the same bytes
    'Two tiny rounds on the bundled models'
    s, how = OwnBest(requests=1, group_size=4, updates=2, batch_size=2), dict(take=exchanged, steps=2)
    with quiet():
        emo = EmoFeedback.mini(base=True)
        adviser = LVLMJudge.from_pretrained(bundled('judge'), False)
        def situations(n, seed):
            at('drawn')
            prompts = scene_sampler(['a lake', 'a city'])(n, np.random.default_rng(seed))
            return drawn_situations(emo.gen, Advised(emo.judge, adviser.suggest), prompts, 1, 2, seed=seed, **how)
        own_best(adviser, situations, Consequences(emo.gen, emo.judge, draws=1, **how), out, s, lambda k: at(k) or {})
    return dict(log=(out/'log.jsonl').read_bytes(), model=(out/'round-2/sft/model.safetensors').read_bytes(),
                learned={n: p.tolist() for n,p in adviser.model.named_parameters()})

def test_an_adviser_goes_on_in_the_round_where_it_was_killed(one_thread, tmp_path):
    'When the first round has learned and is not noted yet, and when the second one begins'
    out = tmp_path/'run'
    killed(lambda die: adviser_run(out, die), lambda moment: moment==1)
    assert read_jsonl(out/'log.jsonl')==[dict(round=0)] and (out/'round-1/sft/model.safetensors').is_file()
    killed(lambda die: adviser_run(out, die), lambda moment: moment=='drawn')
    assert len(read_jsonl(out/'log.jsonl'))==2 and not (out/'round-2/tried').exists()
    assert adviser_run(out)==adviser_run(tmp_path/'whole')
    assert [r['round'] for r in read_jsonl(out/'log.jsonl')]==[0, 1, 2]

# ---- a full disk, and two processes of the command line ----

def called(*args, largest:int=None) -> tuple[int, str]: # exit code, and what was said on stderr
    'Call a command in a fork, in which no file can be larger than so many bytes'
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read) as f: said = f.read()
        return ended(pid), said
    if largest: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    r = CliRunner().invoke(app, [str(a) for a in args])
    error = '' if r.exception is None or isinstance(r.exception, SystemExit) else repr(r.exception)
    os.write(write, (r.stderr+error)[-4000:].encode())
    os._exit(r.exit_code)

JUDGE = '--updates 2 --group-size 2 --set pictures=2 --set save_every=1'.split()
COMMANDS = dict( # the largest file that can be written, and then the arguments
    generator=(60_000, *'train-generator --updates 2 --group-size 2 --set prompts=2 --out {}'.split()),
    judge=(60_000, 'train-judge', *JUDGE, '--out', '{}'),
    data=(6_000, *'build-data --mini 40 --out {}'.split()),
    evaluate=(300, *'evaluate --grid 2 --steps 1 --out {}/table.csv'.split()),
    demo=(3_000, *'demo --updates 1 --cases 2 --fresh 1 --rounds 2 --images 2 --out {}'.split()))

@pytest.mark.parametrize('most,args', [(o[0], o[1:]) for o in COMMANDS.values()], ids=COMMANDS)
def test_a_full_disk_is_one_sentence_and_with_room_it_goes_on(one_thread, tmp_path, most, args):
    args = [a.format(tmp_path/'run') for a in args]
    code, said = called(*args, largest=most)
    lines = [o for o in said.splitlines() if o.startswith('Error') or 'Traceback' in o]
    assert code==1 and len(lines)==1 and lines[0].startswith('Error: the disk is full'), said
    assert 'the same command goes on when there is room' in lines[0]
    assert not [p for p in (tmp_path/'run').rglob('*.new') if p.is_file()], 'half a file is left'
    code, said = called(*args)
    assert code==0, said

TAKEN = {k: [*o[1:]] for k,o in COMMANDS.items()} | dict(
    adviser='train-adviser --updates 1 --out {}'.split(), table=['evaluate-judge', '--out', '{}'],
    mini=['train-mini', '--out', '{}'], described='build-data --mini 4 --describe mini --out {}'.split())

@pytest.mark.parametrize('args', TAKEN.values(), ids=TAKEN)
def test_a_second_command_is_refused_before_models_are_loaded(tmp_path, monkeypatch, args):
    def loaded(*args, **kwargs): raise AssertionError('a model was loaded')
    for name in ('pipeline.EmoFeedback.mini', 'train.load_model', 'understanding.judge.load_model',
                 'understanding.describe.Describer.mini'): monkeypatch.setattr(f'emofeedback.{name}', loaded)
    out = tmp_path/'run'
    out.mkdir()
    name = '.table.csv.lock' if args[0]=='evaluate' else '.lock'
    holder = child(lambda ready: (lock_file(out/name), ready(), time.sleep(60)))
    r = CliRunner().invoke(app, [a.format(out) for a in args])
    os.kill(holder, signal.SIGKILL)
    assert ended(holder)==-signal.SIGKILL
    assert r.exit_code==1 and 'another process works in' in r.stderr and r.stderr.count('Error: ')==1, r.output

def numbers(out) -> dict: # weights, and the log without clocks
    from safetensors.torch import load_file
    weights = {str(p.relative_to(out)): {k: o.tolist() for k,o in load_file(p).items()}
               for p in out.rglob('*.safetensors') if 'checkpoint-' not in str(p)}
    rows = [{k: o for k,o in r.items() if not k.endswith(('_s', 'seconds'))}
            for p in out.rglob('log.jsonl') for r in read_jsonl(p)]
    assert weights and rows
    return weights | dict(log=rows)

def test_a_budget_of_updates_gives_the_same_bits(one_thread, tmp_path):
    for out in (tmp_path/'a', tmp_path/'b'):
        code, said = called(*(a.format(out) for a in COMMANDS['generator'][1:]))
        assert code==0, said
    assert numbers(tmp_path/'a')==numbers(tmp_path/'b')
