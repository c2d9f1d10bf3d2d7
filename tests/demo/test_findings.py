"""What a tour finds: labels and neighbours of images, ranks of sentences."""

from mlx_aimv2.demo.images import LABELS


def test_every_image_has_labels_and_neighbours(tour):
    for number, one in enumerate(tour.images):
        assert len(one.predictions) == len(one.neighbours) == 5
        assert {label for label, _ in one.predictions} <= set(LABELS)
        assert number not in dict(one.neighbours)
        assert one.is_right == (one.predictions[0][0] in one.labels)


def test_every_sentence_is_about_one_image_and_ranks_all(tour):
    assert len({one.own for one in tour.sentences}) == 3
    for one in tour.sentences:
        assert one.text == tour.images[one.own].sample.caption
        assert sorted(number for number, _ in one.ranking) == list(range(6))
        assert one.ranking[one.rank - 1][0] == one.own
