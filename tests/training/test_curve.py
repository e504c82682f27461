"""The picture of a training: what of the log is in it."""

from xml.etree import ElementTree

from retriever.training.curve import curve

SVG = "{http://www.w3.org/2000/svg}"


def drawn(entries, **options):
    return ElementTree.fromstring(curve(entries, **options))


def titles(picture):
    return [each.text for each in picture.iter(f"{SVG}title")]


def test_the_loss_and_the_measure_have_a_panel_each():
    entries = [{"step": 0, "eval_nDCG@10": 0.25}]
    entries += [{"step": step, "loss": 10 / step} for step in (10, 20, 40)]
    entries += [{"step": 40, "eval_nDCG@10": 0.5}, {"step": 40, "train_loss": 3.0}]
    picture = drawn(entries)
    assert titles(picture) == ["10: 1", "20: 0.5", "40: 0.25", "0: 0.25", "40: 0.5"]
    loss, measure = [each.get("points").split() for each in picture.iter(f"{SVG}polyline")]
    assert len(loss) == 3
    (x_first, y_first), (x_last, y_last) = (map(float, place.split(",")) for place in measure)
    assert x_last > x_first
    assert y_last < y_first  # larger is higher, and pixels count downwards
    assert {"loss", "nDCG@10 on dev", "step"} <= {each.text for each in picture.iter(f"{SVG}text")}
    assert picture.get("aria-label").endswith("loss: 1 to 0.25; nDCG@10 on dev: 0.25 to 0.5")


def test_what_is_no_number_is_left_out():
    picture = drawn([{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": float("inf")}])
    assert titles(picture) == ["1: 2"]
    assert len(list(picture.iter(f"{SVG}polyline"))) == 1


def test_a_log_without_either_is_an_empty_picture():
    assert not list(drawn([{"step": 1, "epoch": 0.5}]).iter(f"{SVG}polyline"))


def test_many_numbers_are_a_line_alone():
    picture = drawn(
        [{"epoch": number, "dev_loss": number} for number in range(100)], across="epoch", panels={"dev_loss": "x"}
    )
    assert titles(picture) == []
    (line,) = picture.iter(f"{SVG}polyline")
    assert len(line.get("points").split()) == 100
