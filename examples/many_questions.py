"""Many questions on one document: read it once, cut it once, fork it for each question."""

import copy
import random

import torch
from haystacks import calibration

import kvbudget as kvb
from kvbudget.needles import draw_needles, hide
from kvbudget.prose import built_in_sentences

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.GlobalLocal()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)
plan = kvb.allocate(profile, budget="25%", context_tokens=1024)

facts = draw_needles(random.Random(7), 5)
document = hide(built_in_sentences()[200:230], facts, [0.1, 0.3, 0.5, 0.7, 0.9])
read = tokenizer(document + "\n", return_tensors="pt")["input_ids"]
with kvb.budgeted(model, plan) as cache, torch.no_grad():
    model(read, past_key_values=cache)
    print("read and cut before any question is known:", cache)
    for fact in facts:
        question = tokenizer(fact.question, return_tensors="pt", add_special_tokens=False)
        asked = torch.cat([read, question["input_ids"]], dim=1)
        fork = copy.deepcopy(cache)
        output = model.generate(asked, past_key_values=fork, max_new_tokens=len(fact.number))
        answer = tokenizer.decode(output[0, asked.shape[1] :])
        print(f"{fact.question.strip()} {answer} (right: {fact.number})")
