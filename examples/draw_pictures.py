"""Pictures of a plan, of losses and of a run, and a page to try budgets on."""

from haystacks import calibration, haystack

import kvbudget as kvb

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.ObservationWindow()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)
plan = kvb.allocate(profile, budget="25%", context_tokens=512)
path = kvb.solve_path(profile, context_tokens=512)
solvers = [kvb.solvers.Uniform(), kvb.solvers.Hull()]
comparison = kvb.compare(profile, budgets=["10%", "50%"], solvers=solvers, context_tokens=512)

inputs = tokenizer(haystack(tokenizer, seed=100, tokens=300).text, return_tensors="pt")
with kvb.budgeted(model, plan) as cache:
    watch = kvb.pictures.MemoryWatch(cache.nbytes)
    model.generate(**inputs, max_new_tokens=40, stopping_criteria=[watch])

pictures = {
    "plan.png": kvb.pictures.draw_plan(plan),
    "curves.png": kvb.pictures.draw_curves(profile),
    "frontier.svg": kvb.pictures.draw_frontier(path, comparison),
    "memory.png": kvb.pictures.draw_memory(watch.trace("25 %", plan.budget_bytes)),
}
for name, picture in pictures.items():
    picture.save(name)
    print(f"{name}: {picture}")  # the words that stand for it on a page
kvb.save_report(plan, "report.html", profile=profile)
