'The judge table and judges that compute elsewhere, as a user meets them: kills, servers, bad input'
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from served import Server
from typer.testing import CliRunner

from emofeedback.cli.main import app
from emofeedback.data.dataset import Rows, read_clouds
from emofeedback.evaluation.judges import bootstrap, floor_readings, judge_summary, labelled
from emofeedback.images import to_pil
from emofeedback.mini.models import bundled
from emofeedback.mini.rows import labelled_scenes
from emofeedback.pipeline import EmoFeedback
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.understanding.remote import RemoteJudge, RemoteLVLM

FILES = {'confusion.png', 'readings.jsonl', 'results.json', 'run.json', 'table.md'}

def call(*args): return CliRunner().invoke(app, [str(a) for a in args])

def lines(folder): return [json.loads(o) for o in (folder/'readings.jsonl').read_text().splitlines()]

def results(folder): return json.loads((folder/'results.json').read_text())

pytestmark = pytest.mark.usefixtures('one_thread')

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    'A data set whose targets were drawn from a lexicon'
    out = tmp_path_factory.mktemp('drawn')/'data'
    r = call('build-data', '--mini', 160, '--lexicon', 'warriner', '--bounds', 'truncate', '--out', out)
    assert r.exit_code==0, r.output
    return out

@pytest.fixture(scope='module')
def served():
    'The bundled judge behind a server'
    local = LVLMJudge.from_pretrained(bundled('judge'), direct=False, device='cpu')
    with Server(local.answer) as server: yield server

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    'Six picture files, and something that is none'
    folder = tmp_path_factory.mktemp('pictures')
    for i,p in enumerate(to_pil(labelled_scenes(6, seed=7)[0])): p.save(folder/f'{i}.png')
    (folder/'torn.png').write_bytes(b'\x89PNG\r\n\x1a\n and no more')
    return folder

# the table

def test_table_of_a_data_set(drawn, tmp_path):
    r = call('evaluate-judge', '--rows', drawn, '--split', 'test', '--out', tmp_path/'t')
    assert r.exit_code==0, r.output
    assert {p.name for p in (tmp_path/'t').iterdir()}>=FILES
    rows, found, read = Rows(drawn, 'test'), results(tmp_path/'t'), lines(tmp_path/'t')
    assert list(found['systems'])==['judge', 'floor', 'redrawn', 'constant'] and len(read)==len(rows)
    judge = found['systems']['judge']
    assert judge['v_error'][0]==pytest.approx(sum(abs(o['v']-o['v_read']) for o in read)/len(read))
    assert judge['accuracy'][0]==pytest.approx(sum(o['emotion']==o['emotion_read'] for o in read)/len(read))
    assert [(o['name'], o['v'], o['emotion']) for o in read]==[(r.name, r.affect.v, r.emotion) for r in rows]
    assert sum(n for row in found['confusion'].values() for n in row.values())==len(rows)
    train = labelled(Rows(drawn))
    off = [abs(o['v']-train.v.mean()) for o in read]
    assert found['systems']['constant']['v_error'][0]==pytest.approx(sum(off)/len(off))
    assert judge['v_error'][0]>found['systems']['floor']['v_error'][0]
    assert found['systems']['floor']['accuracy'][0]==1
    assert 'floor' in r.output and found['about']['data']=='data, test'
    assert re.search(r'^judge@\w{12}$', found['about']['judge'])

def test_nobody_beats_the_floor(drawn):
    'On drawn labels the median of a cloud is the best reading: moved anywhere, it errs more'
    clouds, seed, bounds = read_clouds(drawn)
    table = labelled(Rows(drawn)).assign(v_read=math.nan, a_read=math.nan, emotion_read=None)
    floor = floor_readings(table, clouds, seed, bounds)
    least = judge_summary(floor)['a_error'][0]
    for move in (-1, 1): assert judge_summary(floor.assign(a_read=floor.a_read+move))['a_error'][0]>least

def test_interval_covers():
    'Of a hundred intervals of 90 % some ninety hold the truth'
    g = torch.Generator().manual_seed(0)
    found = [bootstrap(torch.rand(60, generator=g), 300, .9)[1:] for _ in range(100)]
    assert 82<=sum(low<=.5<=high for low,high in found)<=98

def test_untrained_qwen(qwen, drawn, tmp_path):
    'A judge that nobody can read: no number is invented'
    r = call('evaluate-judge', '--rows', drawn, '--judge', qwen, '--limit', 2, '--batch', 2, '--out', tmp_path/'t')
    assert r.exit_code==0, r.output
    found = results(tmp_path/'t')
    judge = found['systems']['judge']
    assert judge['n']==2 and judge['readable']==0 and judge['v_error'] is judge['accuracy'] is None
    assert '| judge | 2 | - | - | - | 0.0% |' in r.output and 'First reason' in found['about']['question']

def test_labels_csv_and_direct(pictures, tmp_path):
    (pictures/'labels.csv').write_text('image,valence,arousal,emotion\n0.png,1,1,awe\n1.png,-1,2,\n2.png,,,fear\n')
    r = call('evaluate-judge', '--rows', pictures, '--direct', '--out', tmp_path/'t')
    found = results(tmp_path/'t')['systems']
    assert r.exit_code==0 and list(found)==['judge', 'constant'] and found['judge']['accuracy'] is None
    assert [o['v'] for o in lines(tmp_path/'t')]==[1, -1, None] and found['constant']['v_error'][0]==1

# stopped and gone on with

def start(*args):
    env = dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', TQDM_DISABLE='1')
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, '-m', 'emofeedback', *map(str, args)], env=env, **pipes)

@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_gone_on_with(how, tmp_path):
    args, file = ('evaluate-judge', '--batch', 4, '--out', tmp_path/'t'), tmp_path/'t/readings.jsonl'
    p, end = start(*args), time.time()+120
    def begun(): return file.exists() and file.stat().st_size>0
    while not begun() and p.poll() is None and time.time()<end: time.sleep(.02)
    assert begun(), p.communicate()[1]
    p.send_signal(how)
    stderr = p.communicate(timeout=60)[1]
    if how==signal.SIGINT: assert p.returncode==130 and 'goes on from there' in stderr, stderr
    before = file.read_bytes()
    n = before.count(b'\n')
    assert 4<=n<300 and not (tmp_path/'t/table.md').exists()
    file.write_bytes(before+b'{"row": 99, "na') # as if it had been killed in a line
    r = call(*args[:-1], tmp_path/'t', '--limit', n+3)
    assert r.exit_code==0, r.output
    assert file.read_bytes().startswith(before) and len(lines(tmp_path/'t'))==n+3
    assert sorted(o['row'] for o in lines(tmp_path/'t'))==list(range(n+3))
    whole = results(tmp_path/'t')
    assert call('evaluate-judge', '--limit', n+3, '--out', tmp_path/'again').exit_code==0
    assert results(tmp_path/'again')==whole

# judges behind a server

def test_served_judge_reads_the_same(served, tmp_path):
    'A judge whose folder is here is asked its own question'
    how = '--limit', 12, '--judge', bundled('judge')
    assert call('evaluate-judge', *how, '--out', tmp_path/'here').exit_code==0
    r = call('evaluate-judge', *how, '--judge-endpoint', served.address, '--batch', 3, '--out', tmp_path/'there')
    assert r.exit_code==0, r.output
    assert lines(tmp_path/'there')==lines(tmp_path/'here')
    assert {o[2]['model'] for o in served.seen}=={str(bundled('judge'))}

def test_rate_by_a_server(served, pictures):
    files = [pictures/f'{i}.png' for i in range(3)]
    served_at = '--judge', bundled('judge'), '--judge-endpoint', served.address
    here, there = call('rate', *files), call('rate', *files, *served_at)
    assert there.exit_code==0 and there.stdout==here.stdout, there.output

def test_generate_by_a_server(served, tmp_path):
    how = ['a lake', '--valence', 1, '--arousal', 1, '--rounds', 2, '--images', 2, '--out', tmp_path/'p.png']
    r = call('generate', *how, '--judge', bundled('judge'), '--judge-endpoint', served.address)
    assert r.exit_code==0 and 'it says: ' in r.stdout and (tmp_path/'p.png').is_file(), r.output

def test_train_generator_by_a_server(served, tmp_path):
    args = ['train-generator', '--out', tmp_path/'rf', '--updates', 1, '--group-size', 2]
    served_at = '--judge', bundled('judge'), '--judge-endpoint', served.address
    r = call(*args, *served_at)
    assert r.exit_code==0 and (tmp_path/'rf/lora').is_dir(), r.output
    r = call(*args)
    assert r.exit_code==1 and 'judge is "RemoteJudge(' in r.stderr, r.output

def test_remote_judge_explains(served):
    'Direct while drawing, with emotion and reasons when asked for them'
    lvlm = RemoteLVLM(served.address, 'mini')
    emo = EmoFeedback.mini(base=True, judge=RemoteJudge(lvlm, full=False))
    x = labelled_scenes(2, seed=7)[0]
    assert emo.judge.rate.direct and not emo.explain.rate.direct and not emo.explain.rate.full
    assert all(j.emotion and j.reason for j in emo.rate(x))
    assert not any(j.emotion for j in emo.rate(x, reasons=False))

def test_key_is_no_setting(served, tmp_path, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'sk-very-secret')
    how = '--limit', 2, '--judge', bundled('judge'), '--judge-endpoint', served.address
    assert call('evaluate-judge', *how, '--out', tmp_path/'t').exit_code==0
    assert served.seen[-1][1]=='Bearer sk-very-secret'
    assert not any(b'secret' in p.read_bytes() for p in (tmp_path/'t').iterdir())

# rate

def test_rate_goes_on_after_a_bad_picture(pictures):
    files = [pictures/o for o in ('0.png', 'torn.png', '1.png', 'none.png', '2.png')]
    r = call('rate', *files, '--json', '--batch', 2)
    assert r.exit_code==1
    assert [Path(json.loads(o)['file']).name for o in r.stdout.splitlines()]==['0.png', '1.png', '2.png']
    errors = [o for o in r.stderr.splitlines() if o.startswith('Error: ')]
    assert len(errors)==2 and 'save it again' in errors[0] and 'check the path' in errors[1]

def test_rate_tells_as_it_reads(pictures):
    p = start('rate', *[pictures/f'{i%6}.png' for i in range(400)], '--batch', 1)
    first = p.stdout.readline()
    assert re.match(r'.*0\.png: valence', first)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode==130 and out.count('valence')<398 and 'Stopped' in err

def test_rate_shows_raw_answers(qwen, pictures):
    r = call('rate', pictures/'0.png', '--judge', qwen, '--show-raw')
    assert r.exit_code==0 and 'not readable' in r.stdout and 'it wrote: ' in r.stdout, r.output
    row = json.loads(call('rate', pictures/'0.png', '--judge', qwen, '--show-raw', '--json').stdout)
    assert row['valence'] is None and row['raw']
    assert 'it wrote' not in call('rate', pictures/'0.png', '--judge', qwen).stdout

# bad input

URL = 'http://localhost:1/v1'
MISTAKES = dict(
    no_data=(['--rows', '{}/none'], 'labels.csv'),
    no_split=(['--rows', 'DATA', '--split', 'night'], 'not a split'),
    no_judge=(['--judge', '{}/none'], 'no judge at'),
    which_judge=(['--judge-endpoint', URL], 'give its name there as --judge'),
    no_address=(['--judge', 'm', '--judge-endpoint', 'localhost:8000'], 'is no address'),
    key_in_address=(['--judge', 'm', '--judge-endpoint', 'https://me:secret@host/v1'], 'does not belong here'),
    two_places=(['--judge', 'm', '--judge-endpoint', URL, '--judge-device', 'cpu'], 'in this process'),
    device_of_nothing=(['--judge-device', 'cpu'], 'give a --judge'),
    other_files=(['--out', '{}/other'], 'other files'))

@pytest.mark.parametrize('args,said', MISTAKES.values(), ids=MISTAKES)
def test_mistake(drawn, tmp_path, args, said):
    (tmp_path/'other').mkdir()
    (tmp_path/'other/letter.txt').write_text('to my aunt')
    args = [str(a).replace('{}', str(tmp_path)).replace('DATA', str(drawn)) for a in args]
    r = call('evaluate-judge', '--out', tmp_path/'t', *args)
    assert r.exit_code==1 and r.stderr.startswith('Error: ') and said in r.stderr and 'secret' not in r.stderr, r.output

def test_server_without_the_model(tmp_path):
    with Server(None, [404]*9) as server:
        r = call('evaluate-judge', '--judge', 'nobody', '--judge-endpoint', server.address, '--out', tmp_path/'t')
    assert r.exit_code==1 and 'no such model or address' in r.stderr, r.output

def test_other_judge_other_folder(tmp_path):
    assert call('evaluate-judge', '--limit', 2, '--out', tmp_path/'t').exit_code==0
    for other in (['--judge', bundled('judge_cold')], ['--direct']):
        r = call('evaluate-judge', '--limit', 2, '--out', tmp_path/'t', *other)
        assert r.exit_code==1 and 'choose another --out' in r.stderr, r.output
