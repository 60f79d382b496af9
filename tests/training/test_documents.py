from ragqa.training.documents import _choice


def test_a_choice_that_the_model_had_no_word_in_has_no_figures_of_its_word() -> None:
    told = {"fitted_on": 12, "judged": 0, "features": ["first"], "weights": [0.5], "model": [0.25, 1.0]}
    assert _choice(told) == "fitted on 12 questions: model 0.25, first 0.50"
    judged = told | {"judged": 4, "log_loss": 0.5, "log_loss_without": 0.75}
    assert _choice(judged).startswith(
        "fitted on 12 questions, 4 of them read by the model (5-fold log loss there 0.500"
    )
