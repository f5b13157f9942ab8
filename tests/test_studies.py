'Studies: shared among processes, on models of the real architectures, and as one command that goes on'
import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from emofeedback.cli.main import app
from emofeedback.pipeline import EmoFeedback
from emofeedback.processor import load_processor
from emofeedback.studies.mini import DRAWN, Trained, drawing_study
from emofeedback.studies.study import Study, read_rows, rows_of, run_study
from emofeedback.studies.systems import BestOf, Rewritten, Single
from test_pipeline_full import Adviser, Bright, FAST, judge_of

SCRIPT = '''
import sys
from emofeedback.pipeline import EmoFeedback, mini_oracle
from emofeedback.studies.study import Study, run_study
from emofeedback.studies.systems import BestOf, Single
from emofeedback.system import default_device, process_share

emo = EmoFeedback.mini(base=True)
asked = [emo.request(o, 2, 1) for o in ('a lake by a forest', 'a city')]
systems = dict(one=lambda seed: Single(emo), two=lambda seed: BestOf(emo, [2]))
rows = run_study(Study('shared', asked, systems, mini_oracle()), sys.argv[1], (0, 1), progress=False)
print(process_share(), len(rows), default_device())
'''

def test_processes_share_the_parts(tmp_path):
    file, root = tmp_path/'study.py', Path(__file__).parent.parent
    file.write_text(SCRIPT)
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(root), TQDM_DISABLE='1')
    how = ('--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no '
           '--main_process_port 0')
    both, one = ([sys.executable, *start, str(file), str(tmp_path/name)] for name,start in
                 dict(both=['-m', 'accelerate.commands.launch', *how.split()], one=[]).items())
    for command in (both, one):
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180)
        assert done.returncode==0, done.stderr[-3000:]
        told = done.stdout
        if command is both: assert '(0, 2) 8 c' in told and '(1, 2) 8 c' in told # each sees all parts at the end
        assert 'cpu:' not in told # else its models would be in 16 bits
    a, b = (read_rows(tmp_path/o).drop(columns='seconds') for o in ('both', 'one'))
    pd.testing.assert_frame_equal(a, b)

KINDS = dict(single=Single, best=lambda emo: BestOf(emo, (1, 2)),
             rewritten=lambda emo: Rewritten(emo, 2, 2, fresh=True))

@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_real_architectures(sd35, qwen, tmp_path, kind):
    'Another judge reads than the one that chose'
    emo = EmoFeedback.from_pretrained(sd35, judge_of(qwen, Adviser), **FAST)
    asked = [emo.request(o, 2, 1) for o in ('a lake', 'a city')]
    study = Study('full', asked, dict(it=lambda seed: kind(emo)), judge_of(qwen, Bright))
    with pytest.raises(ValueError, match='its judge is the reader'):
        run_study(Study('same', asked, study.systems, emo.judge), tmp_path/'same', [0], progress=False)
    rows = run_study(study, tmp_path/'study', [0], progress=False)
    assert (rows.network_calls==4*rows.drawn).all() # two steps, each with and without the prompt
    assert rows.v_read.between(-3, 3).all() and not rows.judge.eq(rows.reader).any()

def test_a_stopped_study_goes_on(tmp_path):
    'The same command makes the part that is missing, and refuses another study'
    def call(*more):
        return CliRunner().invoke(app, ['study', 'main', '--out', str(tmp_path/'main'), '--seeds', '0', '--trained',
            str(tmp_path/'trained'), '--requests', '2', '--rounds', '2', '--images', '4', *more])
    whole = call('--updates', '1')
    assert whole.exit_code==0, whole.stderr
    before = read_rows(tmp_path/'main').drop(columns='seconds')
    lost = tmp_path/'main/parts/textual-0.parquet'
    lost.unlink()
    assert call('--updates', '1').exit_code==0 and lost.is_file()
    pd.testing.assert_frame_equal(read_rows(tmp_path/'main').drop(columns='seconds'), before)
    other = call('--updates', '2')
    assert other.exit_code==1 and 'updates is 1, not 2' in other.stderr
    assert json.loads((tmp_path/'main/run.json').read_text())['updates']==1

def test_settings_of_drawing_are_used_and_counted(tmp_path):
    'Guidance calls the network twice per step, and each setting draws other pictures'
    study = drawing_study(Trained(tmp_path, ways=[]), n=2)
    rows = pd.concat([rows_of(study, f'base_{k}', 0, progress=False) for k in DRAWN]).set_index('system')
    calls = rows.index.map(dict(base_quick=8, base_second=8, base_steps=40, base_fine=80))
    assert (rows.network_calls==calls).all() and rows.v_read.nunique()==8

def test_a_stopped_training_draws_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr('emofeedback.studies.mini.train_generator', lambda *args, **how: [dict(update=1)])
    found = CliRunner().invoke(app, ['study', 'rounds', '--out', str(tmp_path/'it'), '--seeds', '0', '--updates', '2'])
    assert found.exit_code==130 and 'Stopped' in found.stderr and not list((tmp_path/'it/parts').iterdir())

# ---- models of one's own ---------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def own(sd35, qwen, taught, pickscore, tmp_path_factory) -> Path:
    'A folder with a judge, another that reads, and scenes to ask for and to train on'
    folder, processor, other = tmp_path_factory.mktemp('own'), load_processor(qwen), deepcopy(taught)
    with torch.no_grad(): other.lm_head.weight.mul_(1.01)
    for name,model in dict(judge=taught, reader=other).items():
        for part in (model, processor): part.save_pretrained(folder/name)
    (folder/'scenes.txt').write_text('a lake by a forest\na city\n')
    (folder/'others.txt').write_text('an old man on the beach\na forest\n')
    return folder

TINY = ('--seeds 0 --requests 2 --updates 1 --rounds 2 --images 2 --size 64 --steps 2 --guidance 2 --set prompts=2 '
        '--set group_size=2 --set rank=4 --set steps=6 --set batch_size=4').split()

def study(own, sd35, pickscore, name, *more, **given):
    'The command with tiny numbers; what is given as None is left out'
    named = dict(generator=sd35, judge=own/'judge', reader=own/'reader', prompts=own/'scenes.txt', out=own/name,
                 train_on=own/'others.txt', preference='pickscore:'+':'.join(map(str, pickscore))) | given
    options = [[f'--{k.replace("_", "-")}', str(o)] for k,o in named.items() if o is not None]
    return CliRunner().invoke(app, ['study', name, *TINY, *sum(options, []), *more])

def test_main_table_of_your_own_models(own, sd35, pickscore):
    def call(*more): return study(own, sd35, pickscore, 'main', *more)
    whole = call()
    assert whole.exit_code==0, whole.output
    rows, page = read_rows(own/'main'), (own/'main/page.html').read_text()
    ways = 'flow_grpo', 'matching'
    assert set(rows.system)=={'plain', 'words', 'numbers', 'both', 'best', 'textual', 'textual_fresh', *ways,
                              *(f'{o}_{p}' for o in ways for p in ('best', 'textual', 'textual_fresh'))}
    assert rows.judge.nunique()==rows.reader.nunique()==1 and (rows.judge!=rows.reader).all()
    assert rows[['v_read', 'clip']].notna().all(axis=None) and rows.content_right.isna().all()
    assert set(rows.content)=={'a lake by a forest', 'a city'} and (rows.network_calls==4*rows.drawn).all()
    assert sd35.name in page and 'both &lt; plain' in page and 'Failure lights' in page
    log = [json.loads(o) for o in (own/'trained/matching-0/log.jsonl').read_text().splitlines()]
    assert log[-1]['reward/scene'] is not None and 'reward/held_valence' not in log[-1]
    before = {p: p.read_bytes() for p in own.rglob('*.parquet')} | {p: p.read_bytes() for p in own.rglob('lora/*')}
    assert call().exit_code==0 and all(p.read_bytes()==o for p,o in before.items())
    other = call('--guidance', '3')
    assert other.exit_code==1 and 'guidance_scale is 2.0, not 3.0' in other.stderr
    drawn = study(own, sd35, pickscore, 'drawing') # shares the training by matching
    assert drawn.exit_code==0 and 'matching-0 is finished' in drawn.output, drawn.output
    calls = read_rows(own/'drawing').groupby('system').network_calls.max()
    assert [calls[f'matching_{o}'] for o in ('quick', 'steps', 'fine')]==[6, 2, 4] # guidance takes two a step

@pytest.mark.parametrize('given, said', [
    (dict(reader=None), 'who scores.*give --reader'), (dict(train_on=None), 'give --train-on, a file'),
    (dict(judge=None), 'give a --judge as well'), (dict(generator=None), '--judge is for a generator of your own'),
    (dict(recipe='mini'), "no recipe 'mini'"), (dict(reader='judge'), 'another Qwen-VL as --reader'),
    (dict(train_on='scenes.txt'), "2 scenes of --prompts are trained on as well, such as 'a city'")])
def test_mistakes_with_your_own_models(own, sd35, pickscore, given, said):
    given = {k: own/o if k!='recipe' and o else o for k,o in given.items()}
    found = study(own, sd35, pickscore, 'rounds', **given)
    assert found.exit_code==1 and re.search(said, found.stderr) and not (own/'rounds/run.json').exists()
