'Fault injection for the describer: unreadable answers, failing servers, runs that are cut off, several processes'
import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from served import Server

from emofeedback.core import Affect, Prompt
from emofeedback.data.labels import Row
from emofeedback.data.prompts import read_target
from emofeedback.mini.models import bundled
from emofeedback.mini.rows import mini_rows
from emofeedback.processor import load_processor
from emofeedback.understanding import remote as remote_module
from emofeedback.understanding.describe import Cache, Describer, captions
from emofeedback.understanding.judge import LVLMJudge, answer, load_model
from emofeedback.understanding.questions import LONGEST, Describe
from emofeedback.understanding.remote import RemoteJudge, RemoteLVLM

GOOD = Describe().reply('a lake', 'a gloomy lake, heavy rain')
SPICE = ['\x00', '\u202e', '\ud800', '🌊', '<answer>', '</answer>', '{', '}', '"', '\\', '\n', ',', '...',
         'valence 3.0 arousal 3.0', 'é']

pytestmark = pytest.mark.usefixtures('one_thread')

@pytest.fixture(scope='module')
def mini(): return Describer.mini(batch_size=8)

@pytest.fixture(scope='module')
def rows(): return list(mini_rows(24, seed=5))

def counted(describer, **changes):
    'The same describer, with the batches and seeds it asked written down'
    calls = []
    def ask(questions, pictures, prefix, max_new_tokens, seeds):
        calls.append((len(questions), seeds))
        return describer.answer(questions, pictures, prefix, max_new_tokens, seeds)
    return Describer(ask, describer.name, **(dict(full=False, batch_size=describer.batch_size) | changes)), calls

def failures():
    'A list, and a callback that fills it'
    reasons = []
    return reasons, lambda *why: reasons.append(why)

# what is written

def test_truncated():
    for end in range(len(GOOD)): assert Describe().read(GOOD[:end]) is None
    assert Describe().read(GOOD)==('a lake', 'a gloomy lake, heavy rain')

def test_mutations():
    r = random.Random(0)
    for _ in range(4000):
        s = list(GOOD)
        for _ in range(r.randint(1, 5)):
            i = r.randrange(len(s))
            s[i:i+r.choice([0, 1, 1, 4])] = r.choice(SPICE)
        got = Describe().read(''.join(s))
        if got is None: continue
        for text, n in zip(got, LONGEST.values(), strict=True):
            assert text.strip()==text and text.isprintable() and 0<len(text)<=n and read_target(text) is None

@pytest.mark.parametrize('value', ['null', 'true', '1', '[]', '{}', '""', '" "', '"..."', '"123"',
                                   '"a\\u0000b"', '"'+'x'*400+'"'])
def test_odd_values(value):
    for k in ('neutral', 'emotional'):
        raw = json.dumps(dict(neutral='a lake', emotional='a gloomy lake') | {k: 'HERE'}).replace('"HERE"', value)
        assert Describe().read(f'<answer>{raw}</answer>') is None

def test_reply_survives_any_language():
    for pair in (('ein See', 'ein “düsterer” See'), ('湖', '霧の湖'), ('a "lake" \\ here', 'a {dark} lake')):
        assert Describe().read(Describe().reply(*pair))==pair

# resuming

def test_resumes_and_asks_only_what_is_missing(mini, rows, tmp_path):
    describer, calls = counted(mini)
    first = describer(rows[:10], tmp_path, progress=False)
    asked = sum(n for n, seeds in calls if seeds is None)
    every = describer(rows, tmp_path, progress=False)
    assert asked==10 and sum(n for n, seeds in calls if seeds is None)==24
    assert {k: every[k] for k in first}==first and list(every)==[r.name for r in rows if r.name in every]
    assert captions(tmp_path)==every
    calls.clear()
    assert describer(iter(rows), tmp_path, progress=False)==every and not calls

def test_key_holds_picture_model_and_question(mini, rows, tmp_path):
    row = rows[0]
    describer, calls = counted(mini)
    other = Row(rows[1].image, row.emotion, name=row.name)
    full, another = counted(mini, full=True)[0], Describer(describer.answer, 'another', full=False)
    for d, r in ((describer, row), (describer, other), (full, row), (another, row)): d([r], tmp_path, progress=False)
    assert len({json.loads(x)['key'] for x in (tmp_path/'captions-0.jsonl').read_text().splitlines()})==4

def test_interrupt_loses_nothing_that_was_done(mini, rows, tmp_path):
    class Off(Exception): pass
    for stop in (KeyboardInterrupt, Off):
        def ask(*args):
            if len(captions(tmp_path))>=16: raise stop
            return mini.answer(*args)
        with pytest.raises(stop): Describer(ask, mini.name, full=False, batch_size=8)(rows, tmp_path, progress=False)
        assert len((tmp_path/'captions-0.jsonl').read_bytes().splitlines())==16
    describer, calls = counted(mini)
    assert len(describer(rows, tmp_path, progress=False))>=23 and calls[0]==(8, None)

def test_killed_in_the_middle_of_a_line(mini, rows, tmp_path):
    whole = mini(rows, tmp_path/'a', progress=False)
    data = (tmp_path/'a/captions-0.jsonl').read_bytes()
    for cut in (len(data)-1, len(data)-30, 5, 0):
        (tmp_path/'b').mkdir(exist_ok=True)
        (tmp_path/'b/captions-0.jsonl').write_bytes(data[:cut])
        assert mini(rows, tmp_path/'b', progress=False)==whole
        assert sorted((tmp_path/'b/captions-0.jsonl').read_bytes().splitlines())==sorted(data.splitlines())

def test_damaged_cache(tmp_path):
    (tmp_path/'captions-0.jsonl').write_bytes(b'\xff\xfe\n[1]\n"x"\n{"key": 1}\nnull\n'+b'['*100_000+b'\n')
    assert not Cache(tmp_path).lines and captions(tmp_path)=={}

def test_unreadable_rows_are_counted_and_left(rows, tmp_path):
    asked = []
    def babble(questions, pictures, prefix, longest, seeds):
        asked.append(seeds)
        return ['babble']*len(questions)
    reasons, skipped = failures()
    d = Describer(babble, 'babble', batch_size=4)
    assert d(rows[:4], tmp_path, progress=False, skipped=skipped)=={}
    assert reasons==[(r.name, "unreadable answer: 'babble'") for r in rows[:4]]
    assert asked[0] is None and len(asked)==3 and len(set(asked[1]+asked[2]))==8
    d(rows[:4], tmp_path, progress=False)
    assert len(asked)==3
    d(rows[:4], tmp_path, progress=False, again=True)
    assert len(asked)==6 and not set(asked[1]+asked[2]) & set(sum(asked[3:], []))
    def good(questions, *args): return [GOOD]*len(questions)
    assert len(Describer(good, 'babble', batch_size=4)(rows[:4], tmp_path, progress=False, again=True))==4
    assert len(d(rows[:4], tmp_path, progress=False))==4

def test_broken_pictures(mini, rows, tmp_path):
    (tmp_path/'torn.png').write_bytes(rows[0].image[:200])
    odd = [Row(tmp_path/'none.png', name='none'), Row(None, name='null'), Row(tmp_path/'torn.png', name='torn'),
           Row(b'', name='empty')]
    reasons, skipped = failures()
    found = mini([*odd[:2], rows[0], *odd[2:], rows[1]], tmp_path/'c', progress=False, skipped=skipped)
    assert list(found)==[rows[0].name, rows[1].name]
    assert [n for n, _ in reasons]==['none', 'null', 'torn', 'empty']
    assert {w.partition(':')[0] for _, w in reasons}=={'no picture'}

def test_names(mini, rows, tmp_path):
    with pytest.raises(ValueError, match='has no name'): mini([Row(rows[0].picture)], tmp_path, progress=False)
    twins = [Row(r.image, name='twin') for r in rows[:2]]
    with pytest.raises(ValueError, match='two rows are called twin'): mini(twins, tmp_path, progress=False)

def test_holds_no_more_pictures_than_a_batch(rows, tmp_path):
    alive, most = [], [0]
    class Picture:
        def __init__(self, row): self.name, self.image, self.emotion, self.row = row.name, row.image, row.emotion, row

        @property
        def picture(self):
            p = self.row.picture
            alive.append(weakref.ref(p))
            most[0] = max(most[0], sum(a() is not None for a in alive))
            return p

    def ask(questions, pictures, *args): return [GOOD]*len(questions)
    Describer(ask, 'm', batch_size=4)((Picture(r) for r in rows), tmp_path, progress=False)
    assert most[0]<=5

def test_feelings_are_asked_again_once(rows, tmp_path):
    sad = Describe().reply('a sad lake', 'a gloomy lake')
    calls = []
    def ask(questions, pictures, prefix, longest, seeds):
        calls.append(len(questions))
        return [sad]*len(questions) if len(calls)<3 else ['']
    found = Describer(ask, 'm', tries=5)(rows[:3], tmp_path, progress=False)
    assert set(found.values())=={('a sad lake', 'a gloomy lake')}
    assert calls==[3, 3]

def test_sampling_does_not_depend_on_the_batch(mini, rows):
    model, processor = load_model(bundled('describer')), load_processor(bundled('describer'))
    pictures, seeds, q = [[r.picture] for r in rows[:6]], list(range(6)), Describe()
    def ask(k): return answer(model, processor, [q.ask()]*len(pictures[k]), pictures[k], '', 64, seeds[k])
    sampled = ask(slice(0, 6))
    assert sampled==ask(slice(0, 2))+ask(slice(2, 6))
    assert sampled!=answer(model, processor, [q.ask()]*6, pictures, '', 64)

# servers

def remote(server, **changes):
    how = dict(key_env='EMOFEEDBACK_TEST_KEY', workers=3, say=lambda line: None)
    return RemoteLVLM(server.address, 'mini', **(how | changes))

def ask_once(lvlm, row, n=1): return lvlm.answer([Describe().ask()]*n, [[row.picture]]*n)

@pytest.fixture
def quick(monkeypatch):
    'Waits that double from a hundredth of a second'
    monkeypatch.setattr(remote_module, 'random', SimpleNamespace(uniform=lambda a, b: .01))

def test_remote_equals_local(mini, rows, tmp_path, quick):
    faults = [429, 500, 'cut', b'{"choices": [', b'[1]', b'{"choices": []}',
              b'{"choices": [{"message": {"role": "assistant", "content": [1]}}]}', b'\xff', 503, 408]
    with Server(mini.answer, faults) as server:
        lvlm = remote(server)
        there = Describer(lvlm.answer, lvlm.name, full=False, batch_size=12)
        assert there(rows, tmp_path, progress=False)==mini(rows, tmp_path/'local', progress=False)
        assert lvlm.counts['waited']==len(faults) and lvlm.counts['answered']>=24 and not server.faults

def test_waits_as_long_as_retry_after_says(mini, rows):
    lines = []
    with Server(mini.answer, [429]) as server:
        ask_once(remote(server, say=lines.append), rows[0])
        assert server.seen[1][0]-server.seen[0][0]>=.3 and 'answered 429; next try in 0.3 s (1 of 6)' in lines[0]

@pytest.mark.parametrize('status, error, remedy', [
    (401, PermissionError, 'EMOFEEDBACK_TEST_KEY is missing or wrong'), (403, PermissionError, 'may not use'),
    (404, ValueError, 'no such model or address'), (400, ValueError, 'does not accept'),
    (405, ValueError, 'does not accept')])
def test_no_use_to_try_again(mini, rows, status, error, remedy, monkeypatch):
    monkeypatch.setenv('EMOFEEDBACK_TEST_KEY', 'sk-very-secret')
    with Server(mini.answer, [status]*9) as server:
        with pytest.raises(error, match=remedy) as e: ask_once(remote(server, workers=1), rows[0], 3)
        assert len(server.seen)<=(3 if status==400 else 2) and 'secret' not in str(e.value)
        assert 'secret' not in str(e.getrepr(style='native')).replace("'sk-very-secret'", '')

def test_gives_up_in_the_end(mini, rows, quick):
    with Server(mini.answer, [500]*9) as server:
        with pytest.raises(ConnectionError, match='failed 3 times, at last: it answered 500'):
            ask_once(remote(server, retries=2), rows[0])
        assert len(server.seen)==3
    with pytest.raises(ConnectionError, match='failed 2 times'): ask_once(remote(server, retries=1), rows[0])

def test_slow_server(mini, rows, quick):
    with Server(mini.answer, ['slow']) as server:
        start = time.monotonic()
        assert Describe().read(ask_once(remote(server, timeout=.5), rows[0])[0])
        assert time.monotonic()-start<2

def test_one_refused_picture_is_no_end(mini, rows, tmp_path, quick):
    reasons, skipped = failures()
    with Server(mini.answer) as server:
        lvlm = remote(server, workers=1)
        describer = Describer(lvlm.answer, lvlm.name, full=False, batch_size=3, tries=1)
        describer(rows[:3], tmp_path, progress=False)
        server.faults = [400]
        found = describer(rows[:6], tmp_path, progress=False, skipped=skipped)
        assert len(found)==5 and reasons==[(rows[3].name, "unreadable answer: ''")] and lvlm.counts['refused']==1

def test_key_is_sent_and_stays_secret(mini, rows, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_of_this_machine')
    with Server(mini.answer) as server:
        lvlm = remote(server)
        ask_once(lvlm, rows[0])
        monkeypatch.setenv('EMOFEEDBACK_TEST_KEY', 'sk-very-secret')
        Describer(lvlm.answer, lvlm.name, full=False)(rows[:1], tmp_path, progress=False)
        assert [a for _, a, _ in server.seen]==[None, 'Bearer sk-very-secret']
        assert 'secret' not in repr(lvlm)+''.join(p.read_text() for p in tmp_path.rglob('*.jsonl'))

def test_remote_judge_suggests(rows):
    local = LVLMJudge.from_pretrained(bundled('judge'), direct=False)
    x = [r.picture for r in rows[:2]]
    with Server(lambda *args: local.answer(*args)) as server:
        judge = RemoteJudge(remote(server), direct=False, full=False)
        read = judge.judge(x)
        assert read==local.judge(x) and read[0].affect is not None
        wish = Prompt('a lake', Affect(2, 1), 'a lake, valence 2.0 arousal 1.0')
        case = [wish], x[:1], read[:1], x[1:], read[1:], [(1, .5)]
        assert judge.suggest(*case)==local.suggest(*case) and judge.suggest(*case)[0] is not None
        parts = server.seen[-1][2]['messages'][0]['content']
        assert len(server.seen)==4 and [p['type'] for p in parts]==['image_url', 'image_url', 'text']

def test_a_slow_request_holds_up_nobody(mini, rows, tmp_path):
    'The first answer comes when all others are there: with a barrier anywhere before, this would wait for ever'
    enough, lock, answered = threading.Event(), threading.Lock(), []
    def ask(questions, pictures, prefix, longest, seeds, stop):
        name = pictures[0][0].tobytes()
        if name==first and seeds is None: assert enough.wait(60)
        text = mini.answer(questions, pictures, prefix, longest, seeds)
        with lock: answered.append(name)
        if len(set(answered))==len(rows)-1: enough.set()
        return text
    first = rows[0].picture.tobytes()
    assert len({r.picture.tobytes() for r in rows})==len(rows)
    there = Describer(ask, mini.name, full=False, batch_size=1, workers=3)
    assert there(rows, tmp_path/'a', progress=False)==mini(rows, tmp_path/'b', progress=False)

def test_stop_is_heard_by_all_requests(rows, tmp_path):
    heard = []
    def ask(questions, pictures, prefix, longest, seeds, stop):
        if pictures[0][0].tobytes()==rows[6].picture.tobytes(): raise KeyboardInterrupt
        if pictures[0][0].tobytes()==rows[7].picture.tobytes(): heard.append(stop.wait(30))
        return [GOOD]
    with pytest.raises(KeyboardInterrupt): Describer(ask, 'm', batch_size=1, workers=4)(rows, tmp_path, progress=False)
    assert heard in ([], [True]) and 3<=len(captions(tmp_path))<len(rows)

# several processes

SCRIPT = '''
import json
import sys
import torch
from emofeedback.mini.models import bundled
from emofeedback.mini.rows import mini_rows
from emofeedback.understanding.describe import Describer
from emofeedback.system import process_share
torch.set_num_threads(1)
reasons = []
describer = Describer.local(bundled('describer'), full=False, batch_size=4)
found = describer(list(mini_rows(11, seed=5)), sys.argv[1], progress=False, skipped=lambda *why: reasons.append(why))
with open(f'{sys.argv[1]}/found-{process_share()[0]}.json', 'w') as f: json.dump([list(found.items()), reasons], f)
'''

def test_two_processes(mini, tmp_path):
    file, cache = tmp_path/'describe.py', tmp_path/'cache'
    file.write_text(SCRIPT)
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(Path(__file__).parent.parent), TQDM_DISABLE='1')
    how = ('--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no '
           '--main_process_port 0')
    launch = [sys.executable, '-m', 'accelerate.commands.launch', *how.split(), str(file), str(cache)]
    done = subprocess.run(launch, capture_output=True, text=True, env=env, timeout=180)
    assert done.returncode==0, done.stderr[-3000:]
    alone = mini(list(mini_rows(11, seed=5)), tmp_path/'alone', progress=False)
    expected = [[[n, list(p)] for n, p in alone.items()], []]
    for k in (0, 1): assert json.loads((cache/f'found-{k}.json').read_text())==expected
    assert [len((cache/f'captions-{k}.jsonl').read_text().splitlines()) for k in (0, 1)]==[6, 5]
    describer, calls = counted(mini)
    assert describer(list(mini_rows(11, seed=5)), cache, progress=False)==alone
    assert not calls # one process goes on where two have been
    assert Counter(captions(cache).values())==Counter(alone.values())

# answers that no model should give

ODD = {'a lone surrogate': '<answer>{"neutral": "a lake \\ud800", "emotional": "x \udfff"}</answer> \ud800',
       'nested': '['*100_000+'{"a":'*100_000, 'endless': 'a lake '*60_000, 'NUL': '\0'*1000, 'empty': ''}

@pytest.mark.parametrize('text', ODD.values(), ids=ODD)
def test_odd_answers_are_kept_and_not_asked_again(rows, tmp_path, text):
    asked, (reasons, skipped) = [], failures()
    def odd(questions, pictures, prefix, longest, seeds):
        asked.append(len(questions))
        return [text, *[GOOD]*(len(questions)-1)] if len(asked)==1 else [text]*len(questions)
    for _ in range(2):
        assert len(Describer(odd, 'odd', batch_size=8)(rows[:3], tmp_path, progress=False, skipped=skipped))==2
    assert asked==[3, 1, 1] and [n for n, _ in reasons]==[rows[0].name]*2
    assert all('unreadable answer' in why and len(why)<1200 for _, why in reasons)
    assert max(map(len, (tmp_path/'captions-0.jsonl').read_bytes().splitlines()))<3000

def test_lines_of_other_types_are_passed_over(tmp_path):
    line = dict(key='k', name='a', model='m', neutral='a lake', emotional='', tries=1)
    bad = [line|dict(name=['a']), line|dict(key={}), line|dict(neutral=5), line|dict(emotional=[]),
           line|dict(tries='1'),
           line|dict(tries=None), line|dict(emotional=None)]
    (tmp_path/'captions-0.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in (*bad, line)))
    assert captions(tmp_path)=={'a': ('a lake', '')} and list(Cache(tmp_path).lines.values())==[line]

def test_every_failed_description_is_listed_and_told(tmp_path):
    from emofeedback.data.build import Source, build
    from emofeedback.data.files import Skipped
    scenes, told, said = list(mini_rows(30, seed=3, size=32)), Skipped(), []
    describer = Describer(lambda questions, *args: ['babble']*len(questions), 'babble')
    assert describer(scenes, tmp_path/'cache', progress=False, skipped=told)=={} and len(told)==30
    build(Source('mini', 'x', lambda sk: scenes), tmp_path/'d', describe=describer, say=said.append, progress=False)
    with open(tmp_path/'d/skipped.csv', newline='') as f: listed = [o for o in csv.reader(f) if 'unreadable' in o[1]]
    assert {n for n, _ in listed}=={r.name for r in scenes} and len(listed)==30
    assert 'unreadable answer | 30' in (tmp_path/'d/README.md').read_text()
    assert any('prompts left out: unreadable answer 30' in o for o in said)

def test_a_key_that_a_server_echoes_is_not_kept(rows, tmp_path, monkeypatch):
    monkeypatch.setenv('EMOFEEDBACK_TEST_KEY', 'sk-very-secret')
    texts = iter(['your key is sk-very-secret', GOOD.replace('a gloomy', 'a sk-very-secret')])
    with Server(lambda *args: [next(texts)]) as server:
        describer = Describer.remote(server.address, 'm', workers=1, key_env='EMOFEEDBACK_TEST_KEY', tries=1)
        found = describer(rows[:2], tmp_path, progress=False)
    assert list(found.values())==[('a lake', 'a *** lake, heavy rain')]
    kept = (tmp_path/'captions-0.jsonl').read_text()
    assert 'secret' not in kept and kept.count('***')==2
