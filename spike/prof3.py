import sys, time, torch, warnings
torch.set_num_threads(1); warnings.filterwarnings('ignore'); sys.path.insert(0, 'port')
from expectation import *
from equal_pictures import batch_pictures
from emofeedback.understanding.judge import LVLMJudge
if len(sys.argv)>2: batch_pictures()
J = LVLMJudge.from_pretrained(sys.argv[1]); x = torch.rand(64, 3, 32, 32); m = J.model; tree = NumberTree(J.processor.tokenizer); P = time.process_time
for _ in range(3):
  with torch.no_grad():
    t = [P()]; i = direct_inputs(J, pictures_of(x)); t.append(P())
    b = opening(m, i, J.processor.image_token_id); t.append(P())
    m.model.visual(i['pixel_values'], grid_thw=i['image_grid_thw']); t.append(P())
    s = listen(m, i, b); t.append(P())
    s0 = listen(m, i, None); t.append(P())
    p, _ = number_belief(m, s, tree); t.append(P())
    go_on(m, s, torch.zeros(64, 8, dtype=torch.long)+300); t.append(P())
print(i['input_ids'].shape, 'opening', b.get_seq_length(), dict(zip(['inputs', 'opening', 'visual alone', 'listen', 'listen without opening', 'belief', 'told'], [round(1000*(c-a)) for a, c in zip(t, t[1:])])))
