'A finished data set that was damaged or tampered with is noticed before anything is trained on it'
import json
import shutil
import warnings

import numpy as np
import pyarrow as pa
import pytest

from emofeedback.data.build import Source, build
from emofeedback.data.dataset import Rows, seal, sha256, splits_of, write_shard
from emofeedback.mini.rows import mini_rows
from emofeedback.train import judge_rows

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp('whole')/'d'
    build(Source('mini', 'x', lambda sk: mini_rows(60, seed=4, size=32)), out, say=str, progress=False)
    return out

@pytest.fixture
def copy(whole, tmp_path): return shutil.copytree(whole, tmp_path/'d')

def message_ends(data:bytes) -> list[int]:
    'Where the batches of an Arrow stream end'
    source, ends = pa.BufferReader(data), []
    while True:
        try: pa.ipc.read_message(source)
        except EOFError: return ends
        ends.append(source.tell())

def test_a_whole_set_opens_in_silence(whole):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert sum(len(Rows(whole, s)) for s in splits_of(whole))==60

def test_a_file_cut_between_two_batches_is_noticed(copy):
    file = copy/'train/00000.arrow'
    data, n = file.read_bytes(), len(Rows(copy))
    file.write_bytes(data[:message_ends(data)[-2]])
    for use in (Rows, judge_rows_of):
        with pytest.raises(ValueError, match='00000.arrow is not as it was written'): use(copy)
    assert n>16

def judge_rows_of(folder): return judge_rows(folder, False, 10)

def test_no_flipped_bit_passes(copy):
    file, rng, found = copy/'train/00000.arrow', np.random.default_rng(0), 0
    data = file.read_bytes()
    for i in rng.integers(0, len(data), 80):
        file.write_bytes(data[:i]+bytes([data[i]^(1<<int(rng.integers(8)))])+data[i+1:])
        sha256.cache_clear() # the clock of a file system is too coarse for 80 files in a second
        try: Rows(copy)
        except ValueError as e: found += '00000.arrow is not as it was written' in str(e)
    assert found==80
    file.write_bytes(data)
    sha256.cache_clear()
    assert len(Rows(copy))

def test_a_missing_file_is_named(copy):
    (copy/'train/00000.arrow').unlink()
    with pytest.raises((ValueError, OSError), match='00000.arrow'): Rows(copy)

@pytest.mark.parametrize('text', ['', '{', '[]', '5', '{"splits": 3}', '{"splits": ["train"], "digests": 5}',
                                  '{"splits": ["train"], "digests": {}}', '\udcff'])
def test_a_damaged_list_of_files_is_named(copy, text):
    (copy/'dataset_dict.json').write_text(text, errors='surrogateescape')
    for use in (Rows, splits_of):
        with pytest.raises(ValueError, match='dataset_dict.json'): use(copy)

def test_an_older_set_opens_with_a_word(copy):
    file = copy/'dataset_dict.json'
    file.write_text(json.dumps(dict(splits=json.loads(file.read_text())['splits'])))
    with pytest.warns(UserWarning, match='older'): assert len(Rows(copy))

def shared(folder, path, data=None):
    'A data set of a stranger, whose pictures are named by path'
    rows = [dict(image=dict(bytes=data, path=path), valence=1., arousal=0., drawn=False, name='a', emotion='awe',
                 neutral='', emotional='', source='', attributes='{}', digest='x')]
    write_shard(folder/'train/00000.arrow', rows)
    seal(folder)
    return folder

@pytest.mark.parametrize('path', ['http://127.0.0.1:9/x.png', 'hf://datasets/a/b/x.png', '{secret}'])
def test_pictures_come_from_their_bytes_alone(tmp_path, path, whole):
    secret = tmp_path/'secret.png'
    secret.write_bytes(next(iter(Rows(whole))).image)
    d = shared(tmp_path/'d', path.format(secret=secret))
    for use in (Rows, judge_rows_of):
        with pytest.raises(ValueError, match='by path'): use(d)
    assert len(Rows(shared(tmp_path/'e', path.format(secret=secret), secret.read_bytes())))
    assert judge_rows_of(tmp_path/'e')[0]['image'].size==(32, 32)
