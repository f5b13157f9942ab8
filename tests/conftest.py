'One thread where a module asks for it; folders of the real architectures, scaled down, made once per run'
import os
import signal
from copy import deepcopy

import pytest
import torch

import scaled
from emofeedback.affect import nearest_emotion
from emofeedback.core import Affect
from emofeedback.processor import load_processor
from emofeedback.understanding.judge import load_model
from emofeedback.understanding.questions import Rate
from emofeedback.understanding.sft import Example, sft

signal.signal(signal.SIGINT, signal.default_int_handler) # a shell starts what runs in the background deaf to Ctrl-C
# PyTorch makes its pool anew in a fork when it is first asked for: here, before the threads of a loader race for it
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))

@pytest.fixture(scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

@pytest.fixture(scope='session')
def sd35(tmp_path_factory): return scaled.sd35(tmp_path_factory.mktemp('sd35'))

@pytest.fixture(scope='session')
def qwen(tmp_path_factory): return scaled.qwen(tmp_path_factory.mktemp('qwen'))

@pytest.fixture(scope='session')
def pickscore(tmp_path_factory):
    'Folder of the weights, and that of the processor'
    folder = tmp_path_factory.mktemp('pickscore')
    return scaled.pickscore(folder/'PickScore_v1', folder/'CLIP-H'), folder/'CLIP-H'

@pytest.fixture(scope='session')
def taught(qwen):
    'A model that answers a question at length in its form'
    model, processor, full = load_model(qwen), load_processor(qwen), Rate(full=True)
    replies = [full.reply(p, nearest_emotion(p), 'light') for p in (Affect(1., -1.), Affect(-1., 1.))]
    plain = [torch.full((3, 28*h, 28*w), c) for h,w in ((2, 2), (3, 4), (4, 3)) for c in (.1, .5, .9)]
    def examples(rng, n):
        return [Example(full.ask(), [plain[rng.integers(9)]], replies[rng.integers(2)]) for _ in range(n)]
    sft(model, processor, examples, updates=200, batch_size=4, warmup=5, progress=False)
    return model

@pytest.fixture(scope='session', params=['float32', 'bfloat16'])
def knows(request, qwen, taught, tmp_path_factory):
    'Its folder, in either precision'
    folder = tmp_path_factory.mktemp('knows')
    for part in (deepcopy(taught).to(getattr(torch, request.param)), load_processor(qwen)): part.save_pretrained(folder)
    return folder
