from app.engine.costs import StepCosts


def measured(decode=0.010, token=0.0005, chunk=512):
    costs = StepCosts(chunk)
    for _ in range(50):
        costs.observe(4, 0, decode)
        tokens = costs.budget(4)
        costs.observe(4, tokens, decode + tokens * token)
    return costs


def test_alone_a_prompt_gets_the_whole_chunk():
    assert StepCosts(300).budget(0) == 300
    assert measured(chunk=64).budget(0) == 64


def test_beside_streams_a_step_may_take_twice_as_long():
    assert measured().budget(4) in range(19, 22)
    assert measured(decode=0.1).budget(4) in range(195, 206)


def test_where_more_prompts_wait_than_streams_run_steps_grow_but_not_without_end():
    costs = measured()
    assert costs.budget(4, 4) == costs.budget(4)
    assert costs.budget(4, 8) in range(38, 43)
    assert costs.budget(4, 100) in range(57, 64)


def test_prompts_always_get_on_and_never_beyond_the_chunk():
    assert measured(token=0.1).budget(4) == 16
    assert measured(decode=10.0).budget(4) == 512
    assert StepCosts(8).budget(3) == 8


def test_an_unmeasured_number_of_rows_gets_a_modest_part():
    assert 16 <= StepCosts(512).budget(9) <= 64


def test_one_pause_of_the_machine_changes_little():
    costs = measured()
    before = costs.budget(4)
    costs.observe(4, 0, 10.0)
    assert before <= costs.budget(4) <= 1.6 * before


def test_under_steady_mixed_load_the_decoding_is_worked_out():
    costs = StepCosts(512)
    costs.observe(0, 500, 500 * 0.0005)
    for _ in range(100):
        costs.observe(8, 40, 0.020 + 40 * 0.0005)
    assert costs.budget(8) in range(35, 46)


def test_nothing_is_learnt_from_nothing():
    costs = StepCosts(512)
    costs.observe(0, 0, 5.0)
    costs.observe(1, 0, 0.0)
    costs.observe(1, 20, 0.0)
    assert costs.budget(1) == StepCosts(512).budget(1)
