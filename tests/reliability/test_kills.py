'A few kills of every command; `make torture` does twenty of each'
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# train-judge and demo take the longest: their resumes are also tested by test_resume and in the lessons
SHORT = 'train-generator', 'build-data', 'evaluate', 'evaluate-judge'

@pytest.fixture(scope='module')
def found(tmp_path_factory):
    out, script = tmp_path_factory.mktemp('kills'), Path(__file__).with_name('kills.py')
    args = [script, out, '--works', ','.join(SHORT), '--trials', '1', '--deaths', '1', '--seconds', '1']
    how = dict(env=os.environ|dict(OMP_NUM_THREADS='1'), capture_output=True, text=True)
    r = subprocess.run([sys.executable, *args], **how)
    assert r.returncode==0, r.stderr[-2000:]
    return {name: json.loads((out/f'{name}.json').read_text()) for name in ('kills', 'deaths', 'seconds')}

@pytest.mark.parametrize('work', SHORT)
def test_a_killed_run_ends_as_one_that_nobody_disturbed(found, work):
    for attack in ('kills', 'deaths'):
        row = found[attack][work]
        assert not row['wrong'] and row['identical']==row['trials'], (attack, row)
    assert found['deaths'][work]['died']==1

def test_a_second_process_is_refused(found):
    for work,row in found['seconds'].items(): assert row['refused']==row['trials'], (work, row)
