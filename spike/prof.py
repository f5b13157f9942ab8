import sys, time, torch, warnings
torch.set_num_threads(1); warnings.filterwarnings('ignore')
sys.path.insert(0, 'port')
import expectation as E
from emofeedback.understanding.judge import LVLMJudge
J = LVLMJudge.from_pretrained(sys.argv[1])
x = torch.rand(64, 3, 32, 32)
P = time.process_time
model, processor = J.model, J.processor
ask = E.Rate(direct=True); text = processor.apply_chat_template(ask.ask(), add_generation_prompt=True, tokenize=False)+ask.prefix
for _ in range(2):
  with torch.no_grad():
    t=[P()]; pics = E.pictures_of(x); t.append(P())
    inputs = processor(text=[text]*64, images=pics, padding=True, padding_side='left', return_tensors='pt'); t.append(P())
    said = E.listen(model, inputs); t.append(P())
    tree = E.NumberTree(processor.tokenizer); t.append(P())
    leaves = tree.branches(); br = E.branched(said, 8); t.append(P())
    E.go_on(model, br, leaves.repeat(64, 1)); t.append(P())
    told = torch.zeros(64, 8, dtype=torch.long)+300
    E.go_on(model, said, told); t.append(P())
    v = model.model.visual(inputs['pixel_values'], grid_thw=inputs['image_grid_thw']); t.append(P())
  print(inputs['input_ids'].shape, dict(zip(['pil','processor','prefill','tree','branch','go_on 8x3','go_on 8','visual alone'], [round(1000*(b-a)) for a, b in zip(t, t[1:])])))
