'The command line as a user meets it: mistakes, Ctrl-C, and a whole small run'
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from inspect import signature
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emofeedback.cli.main import app
from emofeedback.cli.main import demo as demo_command
from emofeedback.demo.claims import CLAIMS
from emofeedback.demo.study import STAGES, DemoConfig
from emofeedback.mini.models import bundled
from emofeedback.studies.study import read_rows

emo = Path(sys.executable).parent/'emofeedback'
SMALL = '--updates 2 --cases 3 --fresh 1 --rounds 2 --images 2'.split()

def call(*args): return CliRunner().invoke(app, [str(a) for a in args])

def files(folder): return {p: p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}

@pytest.fixture
def bad(tmp_path):
    'A folder of things that are wrong'
    (tmp_path/'torn.png').write_bytes(b'\x89PNG\r\n\x1a\n and no more')
    (tmp_path/'binary.txt').write_bytes(bytes(range(128, 200)))
    (tmp_path/'long.txt').write_text('a lake\n' + 'very '*60 + 'long\n')
    (tmp_path/'empty.txt').write_text('# nothing but a remark\n\n')
    (tmp_path/'strange.txt').write_text('a lake\na c\x07ity\n')
    (tmp_path/'file').write_text('in the way')
    (tmp_path/'other').mkdir()
    (tmp_path/'other/letter.txt').write_text('to my aunt')
    (tmp_path/'labels').mkdir()
    (tmp_path/'labels/labels.csv').write_text('image,valence,arousal,emotion\nno.png,1,1,\n')
    shutil.copytree(bundled('generator'), tmp_path/'torn')
    weights = tmp_path/'torn/transformer/diffusion_pytorch_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    return tmp_path

def asked(scene, valence, arousal, out='{}/p.png'):
    return ['generate', scene, '--valence', valence, '--arousal', arousal, '--out', out]

ask = asked('a lake', 1, 1)
MISTAKES = dict(
    off_the_plane=(asked('a lake', 3.5, 0), 'from -3 to 3'),
    not_a_number=(asked('a lake', 'nan', 0), 'from -3 to 3'),
    empty_prompt=(asked(' ', 1, 0), 'the prompt is empty'),
    long_prompt=(asked('a lake '*30, 1, 0), 'shorten'),
    one_picture=([*ask, '--images', 1], 'at least 2'),
    unquoted=(['generate', 'a', 'lake', '--valence', 1, '--arousal', 1, '--out', '{}/p.png'], 'in quotes, "a lake"'),
    already_there=(asked('a lake', 1, 1, '{}/torn.png'), '--force'),
    folder_as_picture=(asked('a lake', 1, 1, '{}/other'), 'does not end in'),
    folder_without_pictures=(['rate', '{}/other'], 'holds no pictures'),
    folder_as_prompts=(['evaluate', '--prompts', '{}/other'], 'other'),
    no_device=([*ask, '--device', 'kitchen'], 'choose cpu'),
    no_ending=(asked('a lake', 1, 1, '{}/picture'), 'does not end in'),
    unwritable_picture=(asked('a lake', 1, 1, '{}/file/p.png'), 'choose another --out'),
    half_a_pipeline=([*ask, '--generator', '{}/torn'], 'give a --judge'),
    missing_generator=([*ask, '--generator', '{}/nothing', '--judge', bundled('judge')], 'no generator at'),
    corrupt_generator=([*ask, '--generator', '{}/torn', '--judge', bundled('judge')], 'cannot be read'),
    missing_judge=([*ask, '--judge', '{}/nothing'], 'no judge at'),
    missing_lora=([*ask, '--lora', '{}/nothing'], 'no adapters at'),
    missing_picture=(['rate', '{}/no.png'], 'check the path'),
    corrupt_picture=(['rate', '{}/torn.png'], 'save it again'),
    missing_prompts=(['demo', '--out', '{}/run', '--prompts', '{}/no.txt'], 'check the path'),
    binary_prompts=(['demo', '--out', '{}/run', '--prompts', '{}/binary.txt'], 'UTF-8'),
    long_line=(['demo', '--out', '{}/run', '--prompts', '{}/long.txt'], 'line 2'),
    strange_line=(['demo', '--out', '{}/run', '--prompts', '{}/strange.txt'], 'line 2'),
    no_scene=(['demo', '--out', '{}/run', '--prompts', '{}/empty.txt'], 'holds no scene'),
    foreign_folder=(['demo', '--out', '{}/other'], 'other files'),
    unwritable_run=(['demo', '--out', '{}/file/run'], 'choose another --out'),
    one_image=(['demo', '--out', '{}/run', '--images', 1], 'at least 2'),
    no_recipe=(['demo', '--out', '{}/run', '--recipe', 'wishing'], 'choose mini_rf'),
    one_in_group=(['train-generator', '--out', '{}/rf', '--group-size', 1], '2 or more'),
    no_time=(['train-generator', '--out', '{}/rf', '--minutes', 0], 'more than 0'),
    one_suggestion=(['train-adviser', '--out', '{}/a', '--group-size', 1], 'at least 2'),
    rounds_of_grpo=(['train-adviser', '--out', '{}/a', '--method', 'grpo', '--rounds', 3], 'leave it out'),
    missing_adviser=([*ask, '--adviser', '{}/nothing'], 'no judge at'),
    one_answer=(['train-judge', '--out', '{}/j', '--group-size', 1], 'at least 2'),
    bad_labels=(['train-judge', '--out', '{}/j', '--rows', '{}/labels'], 'line 2'),
    no_stage=(['train-mini', '--out', '{}/mini', '--only', 'castle'], 'choose from'),
    bad_table=(['evaluate', '--out', '{}/table.xls'], '.csv'),
)

@pytest.mark.parametrize('args,said', MISTAKES.values(), ids=MISTAKES)
def test_mistake(bad, args, said):
    before = files(bad)
    r = call(*(str(a).replace('{}', str(bad)) for a in args))
    lines = [o for o in r.stderr.splitlines() if not o.startswith('Warning: ')]
    assert r.exit_code==1, r.output
    assert len(lines)==1 and lines[0].startswith('Error: ') and said in lines[0], r.output
    assert files(bad)==before

def test_usage_mistake():
    r = call('generate', 'a lake', '--valence', 'high', '--arousal', 0)
    assert r.exit_code==2 and 'valence' in r.stderr
    r = call(*ask, '--seed', 10**20)
    assert r.exit_code==2 and '4294967295' in r.stderr

def test_help_is_light():
    code = 'import sys\nfrom emofeedback.cli.main import app\nprint(*sys.modules)'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert not {'torch', 'transformers', 'diffusers', 'numpy'}&set(loaded)
    trains = 'train-judge train-adviser train-generator train-mini'.split()
    for command in (*'demo generate rate evaluate evaluate-judge'.split(), *trains):
        r = call(command, '--help')
        assert r.exit_code==0 and f'emofeedback {command}' in r.output, 'an example is missing'

def test_version_and_short_help():
    assert call('--version').stdout.startswith('emofeedback ') and call('generate', '-h').exit_code==0
    assert '--install-completion' in call('-h').stdout and '--quiet' in call('train-judge', '-h').stdout

def test_nothing_is_overwritten_in_silence(tmp_path, monkeypatch):
    'Without a name the next number, with a name a refusal; results as JSON, and nothing else with --quiet'
    monkeypatch.chdir(tmp_path)
    how = 'generate', 'a lake', '--valence', 1, '--arousal', 1, '--rounds', 2, '--images', 2
    first = call(*how, '--all', 'rounds')
    away = re.search(r'picture.png: the judge reads valence .*: (\d\.\d) from what was asked', first.stdout)
    second = call('--quiet', *how, '--seed', 1)
    assert away and second.stdout.startswith('picture-2.png: ') and len(second.stdout.splitlines())==1
    before = files(tmp_path)
    assert 'another folder as --all' in call(*how, '--out', 'b.png', '--all', 'rounds').stderr
    assert files(tmp_path)==before
    r = call(*how, '--out', 'picture.png', '--force', '--json', '-q')
    found = json.loads(r.stdout)
    assert found['file']=='picture.png' and abs(found['distance']-float(away[1]))<.06 and found['target']==[1, 1]
    kept = json.loads((tmp_path/'rounds/feedback.json').read_text())
    assert found['texts']==[o['text'] for o in kept['rounds']]

def test_rounds_are_kept_on_ctrl_c(tmp_path):
    p = start(*asked('a lake', 1, 1, tmp_path/'p.png'), '--rounds', 60, '--images', 8, '--all', tmp_path/'r')
    wait_for(tmp_path/'r/feedback.json', p)
    p.send_signal(signal.SIGINT)
    stderr = p.communicate(timeout=120)[1]
    assert p.returncode==130 and f'Finished rounds are kept in {tmp_path}/r.' in stderr and 'Traceback' not in stderr
    rounds = len(json.loads((tmp_path/'r/feedback.json').read_text())['rounds'])
    assert 0<rounds<60 and (tmp_path/f'r/round_{rounds}.png').is_file() and not (tmp_path/'p.png').exists()

def test_generate_and_rate(tmp_path):
    how = '--rounds', 2, '--images', 2, '--all'
    one, two = (call(*asked('a castle by a lake', -1, 2, tmp_path/f'{k}.png'), *how, tmp_path/str(k)) for k in (1, 2))
    assert one.exit_code==0 and "Warning: the mini world does not know 'castle'" in one.stderr
    assert (tmp_path/'1.png').read_bytes()==(tmp_path/'2.png').read_bytes()
    assert {'best.png', 'feedback.json', 'round_1.png', 'round_2.png'} <= {p.name for p in (tmp_path/'1').iterdir()}
    r = call('rate', tmp_path/'1.png', tmp_path/'2.png', '--json')
    rows = [json.loads(o) for o in r.stdout.splitlines()]
    assert len(rows)==2 and rows[0]['valence']==rows[1]['valence']
    assert set(rows[0])=={'file', 'valence', 'arousal', 'emotion', 'reason', 'familiar'} and rows[0]['familiar']

def test_order_of_the_steps(tmp_path):
    'From the same noise and for the same calls, a picture has more detail'
    from emofeedback.images import read_image, to_tensor
    from emofeedback.make.report import detail
    seen = {}
    for order in (1, 2):
        png = tmp_path/f'{order}.png'
        r = call(*asked('a lake by a forest', 1, 0, png), '--rounds', 0, '--order', order)
        assert r.exit_code==0, r.stderr
        seen[order] = detail(to_tensor([read_image(png)])).item()
    assert seen[2]>1.1*seen[1]
    assert call(*ask, '--order', 3).exit_code==2

def test_demo(tmp_path):
    "A whole run of seconds, on prompts of one's own"
    scenes = tmp_path/'scenes.txt'
    scenes.write_text('# mine\na lake by a forest\na tower on a hill\n')
    out = tmp_path/'run'
    r = call('demo', '--out', out, '--prompts', scenes, *SMALL)
    assert r.exit_code==0, r.output
    assert "does not know 'tower'" in r.stderr
    run = json.loads((out/'results.json').read_text())
    assert list(run['systems'])==['constant', 'base', 'base_tf', 'base_best', 'rf', 'rf_tf', 'rf_best']
    columns = {'v_error', 'a_error', 'v_se', 'a_se', 'content', 'clip_score', 'n'}
    assert all(columns<=set(s) for s in run['systems'].values())
    assert {s['n'] for s in run['systems'].values()}=={3} and run['done']==list(STAGES)==list(run['seconds'])
    assert set(run['judge_oracle'])=={'renders', 'base', 'rf'} and list(run['fresh'])==['base', 'rf']
    assert list(run['tests'])==list(CLAIMS)
    rows = read_rows(out) # the folder of a study
    assert list(rows.system.unique())[:3]==['base', 'base_tf', 'base_tf_fresh'] and set(rows.reader)=={'Oracle'}
    assert len((out/'feedback/base.jsonl').read_text().splitlines())==3
    assert run['versions']['torch'] and run['seed']==0
    page = (out/'report.html').read_text()
    assert not re.search(r'(src|href)="(?!data:)', page) and '<script' not in page
    assert page.count('data:image/png')>=6 and all(words in page for words,*_ in CLAIMS.values())
    assert (out/'rf/lora/pytorch_lora_weights.safetensors').is_file() and str(out/'report.html') in r.stdout
    before = files(out)
    r = call('demo', '--out', out, '--prompts', scenes, *SMALL, '--seed', 1)
    assert r.exit_code==1 and 'seed is 0, not 1' in r.stderr and files(out)==before
    r = call(*asked('a lake', 1, 1, tmp_path/'p.png'), '--rounds', 0, '--lora', out/'rf/lora')
    assert r.exit_code==0, r.output

def start(*args):
    env = dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([str(a) for a in (emo, *args)], env=env, **pipes)

def wait_for(path, p, seconds=240):
    end = time.time()+seconds
    while not path.exists() and p.poll() is None and time.time()<end: time.sleep(.2)
    assert path.exists(), p.communicate()[1] if p.poll() is not None else 'too slow'

def test_interrupted_demo_goes_on(tmp_path):
    out, args = tmp_path/'run', ['demo', '--out', tmp_path/'run', '--updates', 8, *SMALL[2:]]
    p = start(*args)
    wait_for(out/'curve.jsonl', p)
    p.send_signal(signal.SIGINT)
    stderr = p.communicate(timeout=120)[1]
    assert p.returncode==130 and 'the same command goes on' in stderr and 'Traceback' not in stderr
    run = json.loads((out/'results.json').read_text())
    assert run['done']==list(STAGES)[:4]
    updates = len((out/'rf/log.jsonl').read_text().splitlines())
    part = (out/'parts/base-0.parquet').stat().st_mtime_ns
    assert updates>0
    p = start(*args)
    stderr = p.communicate(timeout=900)[1]
    assert p.returncode==0, stderr
    log = [json.loads(o) for o in (out/'rf/log.jsonl').read_text().splitlines()]
    assert len(log)>updates and [o['update'] for o in log]==list(range(1, len(log)+1))
    assert (out/'parts/base-0.parquet').stat().st_mtime_ns==part and (out/'report.html').is_file()

def test_evaluate(tmp_path):
    scenes = tmp_path/'scenes.txt'
    scenes.write_text('a sea with a boat\n')
    r = call('evaluate', '--prompts', scenes, '--grid', 2, '--json', '--out', tmp_path/'rows.csv')
    found = json.loads(r.stdout)
    assert found['generator']['n']==4 and found['constant']['content'] is None
    assert len((tmp_path/'rows.csv').read_text().splitlines())==5

def test_train_generator(tmp_path):
    args = 'train-generator', '--out', tmp_path/'rf', '--updates', 1, '--group-size', 2
    r = call(*args, '--recipe', 'mini_flow_grpo')
    assert r.exit_code==0 and (tmp_path/'rf/lora').is_dir(), r.output
    assert 'scenes: too short a run' in r.stdout and 'hacking: too short a run' in r.stdout
    log = json.loads((tmp_path/'rf/log.jsonl').read_text())
    assert {'reward/scene', 'reward/held_valence'}<=set(log) # the small judge is the second one
    r = call(*args, '--recipe', 'mini_rf')
    assert r.exit_code==1 and 'other settings' in r.stderr

def test_a_run_is_what_it_was_started_with(tmp_path):
    'Other prompts and another judge are refused with the difference named; a finished run says so'
    lake, city = tmp_path/'lake.txt', tmp_path/'city.txt'
    lake.write_text('a lake\n')
    city.write_text('a city\n')
    args = 'train-generator', '--out', tmp_path/'rf', '--updates', 1, '--group-size', 2
    assert call(*args, '--prompts', lake).exit_code==0
    before = files(tmp_path/'rf')
    others = {'prompts is': ['--prompts', city], 'judge is': ['--prompts', lake, '--judge', bundled('judge_cold')]}
    for name,other in others.items():
        r = call(*args, *other)
        assert r.exit_code==1 and name in r.stderr and files(tmp_path/'rf')==before, r.output
    r = call(*args, '--prompts', lake)
    assert r.exit_code==0 and 'is finished: 1 updates' in r.stdout and files(tmp_path/'rf')==before
    args = 'train-judge', '--out', tmp_path/'j', '--updates', 1, '--group-size', 2
    assert call(*args).exit_code==0
    r = call(*args, '--seed', 1)
    assert r.exit_code==1 and 'seed is 0, not 1' in r.stderr
    r = call(*args, '--judge', bundled('judge'), '--recipe', 'mini_judge')
    assert r.exit_code==1 and 'other settings' in r.stderr

def test_the_options_of_the_demo_are_its_settings():
    'The command repeats the defaults, so that it can be asked for help without torch'
    said = {k: o.default for k,o in signature(demo_command).parameters.items()}
    settings = asdict(DemoConfig())
    both = [k for k in said if k in settings and k!='models']
    assert len(both)>6 and {k: said[k] for k in both}=={k: settings[k] for k in both}

def test_train_judge(tmp_path):
    r = call('train-judge', '--out', tmp_path/'j', '--updates', 1, '--group-size', 2)
    assert r.exit_code==0 and 'after: distance' in r.stdout, r.output
    assert re.search(r'1/1 updates.*reward \d', r.stderr) and 'reward nan' not in r.stderr
    r = call('rate', tmp_path/'j/judge/none.png', '--judge', tmp_path/'j/judge')
    assert 'check the path' in r.stderr

def test_train_adviser(tmp_path):
    'Trained, gone on with, refused for another judge; then it advises'
    args = ['train-adviser', '--out', tmp_path/'a', *'--rounds 1 --requests 2 --updates 1 --group-size 4'.split()]
    r = call(*args)
    assert r.exit_code==0 and re.search(r'after round 1: \d+% of suggestions', r.output), r.output
    assert f'--adviser {tmp_path}/a/judge' in r.stdout
    log = [json.loads(o) for o in (tmp_path/'a/rounds/log.jsonl').read_text().splitlines()]
    assert [o['round'] for o in log]==[0, 1] and {'sampled', 'best', 'nearer', 'dealt'}<=set(log[1])
    before = files(tmp_path/'a/rounds')
    r = call(*args)
    assert r.exit_code==0 and 'a finished run of 1 rounds' in r.output and files(tmp_path/'a/rounds')==before
    r = call(*args, '--judge', bundled('judge_cold'))
    assert r.exit_code==1 and 'judge is' in r.stderr
    r = call(*asked('a lake', 1, 1, tmp_path/'p.png'), '--rounds', 2, '--images', 2, '--adviser', tmp_path/'a/judge')
    assert r.exit_code==0 and (tmp_path/'p.png').is_file(), r.output
