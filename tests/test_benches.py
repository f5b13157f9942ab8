'The scripts behind the recorded figures still run, and write rows of the recorded form'
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HERE = Path(__file__).parent
RECORDED = HERE.parent/'nbs/recorded'
TINY = dict(
    objectives='--names nft --seeds 0 --updates 1',
    judge_ablation='--names regression_drawn --seeds 0 --updates 1',
    hacking='--names normal --seeds 0 --updates 1',
    card='--renders 8 --requests 4 --advised 2 --pictures 2',
    advice='--ways chance --systems base --seeds 0 --rounds 3x8 --requests 2',
    transitions='--systems words --seeds 0 --scenes 1 --points 2')


def rows_in(folder):
    'Columns of each kind of row, and how many rows there are'
    files = sorted(folder.glob('*.jsonl'))
    rows = [json.loads(o) for f in files for o in f.read_text(encoding='utf-8').splitlines()]
    tables = [pd.read_parquet(f) for f in folder.glob('*.parquet')]
    columns = {frozenset(o) for o in rows} | {frozenset(t.columns) for t in tables}
    return columns, len(rows)+sum(map(len, tables))


@pytest.mark.parametrize('name', TINY)
def test_a_bench_runs_with_a_tiny_budget(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE/'bench')
    monkeypatch.setattr(sys, 'argv', [name, str(tmp_path), *TINY[name].split()])
    runpy.run_path(str(HERE/'bench'/f'{name}.py'), run_name='__main__')
    made, n = rows_in(tmp_path)
    assert n and made<=rows_in(RECORDED/name)[0]


def test_labels_of_raters_err_less_than_drawn_ones_and_name_fewer_emotions(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE/'bench')
    bench = runpy.run_path(str(HERE/'bench/judge_ablation.py'))
    _, affects, emotions = bench['labelled_scenes'](100, seed=0)
    def found(how):
        t = pd.read_csv(bench['labelled'](tmp_path/how, how, 100)/'labels.csv')
        error = np.abs(t[['valence', 'arousal']].to_numpy()-np.array([tuple(o) for o in affects])).mean(0).max()
        return error, (t.emotion==list(emotions)).mean()
    (drawn, right), (people, agreed) = found('drawn'), found('people')
    assert people<.3<drawn and right==1 and .5<agreed<.9
