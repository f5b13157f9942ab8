'Folders of the real architectures, scaled down, made once per run'
import pytest

import scaled

@pytest.fixture(scope='session')
def sd35(tmp_path_factory): return scaled.sd35(tmp_path_factory.mktemp('sd35'))

@pytest.fixture(scope='session')
def qwen(tmp_path_factory): return scaled.qwen(tmp_path_factory.mktemp('qwen'))

@pytest.fixture(scope='session')
def pickscore(tmp_path_factory):
    'Folder of the weights, and that of the processor'
    folder = tmp_path_factory.mktemp('pickscore')
    return scaled.pickscore(folder/'PickScore_v1', folder/'CLIP-H'), folder/'CLIP-H'
