'Studies: shared among processes, on models of the real architectures, and as one command that goes on'
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from emofeedback.cli.main import app
from emofeedback.pipeline import EmoFeedback
from emofeedback.studies.mini import DRAWN, Trained, drawing_study
from emofeedback.studies.study import Study, read_rows, rows_of, run_study
from emofeedback.studies.systems import BestOf, Rewritten, Single
from test_pipeline_full import Adviser, Bright, FAST, judge_of

SCRIPT = '''
import sys
from emofeedback.pipeline import EmoFeedback, mini_oracle
from emofeedback.studies.study import Study, run_study
from emofeedback.studies.systems import BestOf, Single
from emofeedback.system import process_share

emo = EmoFeedback.mini(base=True)
asked = [emo.request(o, 2, 1) for o in ('a lake by a forest', 'a city')]
systems = dict(one=lambda seed: Single(emo), two=lambda seed: BestOf(emo, [2]))
rows = run_study(Study('shared', asked, systems, mini_oracle()), sys.argv[1], (0, 1), progress=False)
print(process_share(), len(rows))
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
        if command is both: assert '(0, 2) 8' in told and '(1, 2) 8' in told # each sees all parts at the end
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
    calls = rows.index.map(dict(base_quick=8, base_steps=40, base_fine=80))
    assert (rows.network_calls==calls).all() and rows.v_read.nunique()==6
