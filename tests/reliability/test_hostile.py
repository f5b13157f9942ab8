'Folders of judges that bring code of their own, and what our own folders tell about the machine'
import builtins
import json
import shutil

import pytest

from emofeedback.mini.models import bundled
from emofeedback.understanding.expectation import load_judge
from emofeedback.understanding.judge import LVLMJudge, load_model, stored_dtype

CODE = '''
from pathlib import Path
Path({mark!r}).touch()
from transformers import (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2Tokenizer,
                          Qwen2VLImageProcessor)
class Evil(Qwen2_5_VLForConditionalGeneration): pass
class EvilConfig(Qwen2_5_VLConfig): pass
'''
KINDS = {
    'config.json': dict(AutoConfig='evil.EvilConfig', AutoModelForImageTextToText='evil.Evil'),
    'processor_config.json': dict(AutoProcessor='evil.Qwen2_5_VLProcessor'),
    'preprocessor_config.json': dict(AutoImageProcessor='evil.Qwen2VLImageProcessor'),
    'tokenizer_config.json': dict(AutoTokenizer=['evil.Qwen2Tokenizer', 'evil.Qwen2Tokenizer']),
}

@pytest.fixture
def hostile(tmp_path, monkeypatch):
    'A judge with code beside it, a mark that it leaves when it runs, and a terminal that says yes'
    folder, mark, asked = tmp_path/'judge', tmp_path/'mark', []
    shutil.copytree(bundled('judge'), folder)
    (folder/'evil.py').write_text(CODE.format(mark=str(mark)))
    monkeypatch.setattr(builtins, 'input', lambda *args: asked.append(args) or 'y')
    monkeypatch.setenv('HF_MODULES_CACHE', str(tmp_path/'modules'))
    monkeypatch.chdir(tmp_path)
    yield folder
    assert not mark.exists() and not asked

def change(folder, name, **fields):
    file = folder/name
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | fields))

@pytest.mark.parametrize('model_type', ['qwen2_5_vl', 'evil'])
@pytest.mark.parametrize(('name', 'auto_map'), KINDS.items(), ids=KINDS)
def test_code_of_a_judge_is_never_run(hostile, name, auto_map, model_type):
    change(hostile, name, auto_map=auto_map)
    if model_type=='evil': change(hostile, 'config.json', model_type='evil', architectures=['Evil'])
    for load in (LVLMJudge.from_pretrained, load_judge):
        with pytest.raises(ValueError, match='the (judge|processor) at .* cannot be read') as e:
            load(hostile, device='cpu')
        if model_type!='evil': assert f'{name} names code of its own (auto_map)' in str(e.value)
        assert '\n' not in str(e.value)

def test_the_precision_of_a_hostile_judge_is_not_read(hostile):
    change(hostile, 'config.json', auto_map=KINDS['config.json'])
    with pytest.raises(ValueError, match='auto_map'): stored_dtype(hostile)

@pytest.mark.parametrize('claim', [dict(r=10**7), dict(rank_pattern={'q_proj': 10**7}), dict(r='16')], ids=str)
def test_a_claimed_rank_does_not_fill_the_memory(tmp_path, claim):
    from peft import LoraConfig, get_peft_model
    model = load_model(bundled('judge'))
    get_peft_model(model, LoraConfig(r=2, target_modules=['q_proj'])).save_pretrained(tmp_path/'lora')
    load_model(bundled('judge'), adapter=tmp_path/'lora')
    change(tmp_path/'lora', 'adapter_config.json', **claim)
    with pytest.raises(ValueError, match='the adapter at .* cannot be read') as e:
        load_model(bundled('judge'), adapter=tmp_path/'lora')
    assert 'claim rank 10000000' in str(e.value) or claim['r']=='16'

def test_a_saved_judge_does_not_tell_where_it_was(tmp_path):
    shutil.copytree(bundled('judge'), tmp_path/'of_this_machine')
    LVLMJudge.from_pretrained(tmp_path/'of_this_machine', device='cpu').save_pretrained(tmp_path/'out')
    told = [p.name for p in (tmp_path/'out').rglob('*') if p.is_file() and str(tmp_path).encode() in p.read_bytes()]
    assert not told
