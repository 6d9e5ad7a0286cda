from app.engine.costs import StepCosts


def measured(decode=0.010, token=0.0005, chunk=512):
    costs = StepCosts(chunk)
    for _ in range(50):
        costs.observe(4, 0, decode)
        tokens = costs.budget(4)
        costs.observe(4, tokens, decode + tokens * token)
    return costs


def test_alone_a_prompt_gets_the_whole_chunk():
    costs = StepCosts(512)
    costs.observe(0, 128, 0.028)
    assert costs.budget(0) == 512
    assert measured(chunk=64).budget(0) == 64


def test_a_first_chunk_is_modest():
    assert StepCosts(512).budget(0) == 128
    assert StepCosts(100).budget(0) == 100


def test_no_step_is_long_however_slow_the_machine():
    for token in (0.001, 0.003, 0.0074):
        costs = measured(token=token, decode=token)
        for _ in range(100):
            alone, beside = costs.budget(0), costs.budget(4, 100)
            assert alone >= 8
            assert alone * token <= 0.17 < 2 * alone * token + 0.02
            assert beside == 8 or token + beside * token <= 0.17
            costs.observe(0, alone, alone * token)
    costs = StepCosts(512)
    costs.observe(0, 512, 45.0)
    assert costs.budget(0) == 8


def test_a_machine_that_has_become_fast_again_gets_whole_chunks_again():
    costs = StepCosts(512)
    costs.observe(0, 128, 45.0)
    for _ in range(100):
        costs.observe(0, costs.budget(0), 0.005 + costs.budget(0) * 0.0002)
    assert costs.budget(0) == 512


def test_a_slow_first_step_is_soon_forgotten():
    costs = StepCosts(512)
    costs.observe(0, 128, 0.100)
    for _ in range(5):
        costs.observe(0, costs.budget(0), costs.budget(0) * 0.0002)
    assert costs.budget(0) >= 256


def test_drafts_say_nothing_of_what_prompts_and_decoding_cost():
    costs = measured()
    before = costs.budget(4)
    for _ in range(100):
        costs.observe(4, 0, 0.015, n_drafted=1)
    assert costs.budget(4) == before


def test_beside_streams_a_step_may_take_four_fifths_longer():
    assert measured().budget(4) in range(15, 18)
    assert measured(decode=0.05, token=0.00025).budget(4) in range(155, 166)


def test_where_more_prompts_wait_than_streams_run_steps_grow_but_not_without_end():
    costs = measured()
    assert costs.budget(4, 3) == costs.budget(4)
    assert costs.budget(4, 4) in range(19, 22)
    assert costs.budget(4, 8) in range(38, 43)
    assert costs.budget(4, 100) in range(57, 64)


def test_prompts_always_get_on_and_never_beyond_the_chunk():
    assert measured(token=0.1).budget(4) == 8
    assert measured(token=0.00001).budget(4) == 512
    assert measured(decode=0.14).budget(4) in range(75, 81)  # 40 ms, beside steps that are too long anyway
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
    assert costs.budget(8) in range(28, 37)


def test_nothing_is_learnt_from_nothing():
    costs = StepCosts(512)
    costs.observe(0, 0, 5.0)
    costs.observe(1, 0, 0.0)
    costs.observe(1, 20, 0.0)
    assert costs.budget(1) == StepCosts(512).budget(1)
