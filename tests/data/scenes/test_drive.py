"""Roads, objects on them and what the cameras and the LiDAR see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from multimodal_zoo.data.scenes.actors import EGO_SIZE, SIZES, Actor
from multimodal_zoo.data.scenes.backdrop import Backdrop, BackdropPaint
from multimodal_zoo.data.scenes.drive import Drive
from multimodal_zoo.data.scenes.lidar import scan
from multimodal_zoo.data.scenes.rig import CAMERAS, LIDAR_ROTATION, LIDAR_TRANSLATION, Camera
from multimodal_zoo.data.scenes.road import Road
from multimodal_zoo.data.scenes.textures import PALETTES, SIDES, paint
from multimodal_zoo.data.scenes.view import View, textures_of, to_camera

WIDTH, HEIGHT = 200, 112
DURATION = 4.0


@pytest.fixture(scope="module")
def drives() -> list[Drive]:
    return [Drive.drawn(np.random.default_rng(seed), DURATION) for seed in range(6)]


@pytest.mark.parametrize("curvature", [0.0, 1e-9, 0.02, -0.015])
def test_places_on_a_road(curvature) -> None:
    road = Road(curvature=curvature, heading=0.7, origin=(10.0, -4.0))
    along, beside = np.linspace(-60, 80, 29), np.linspace(-20, 25, 29)
    place, heading = road.place(along, beside)
    # The middle line, integrated in small steps.
    steps = np.linspace(0, 37.0, 100001)
    angle = 0.7 + curvature * (steps[1:] + steps[:-1]) / 2
    walked = np.array([10.0, -4.0]) + np.array([np.cos(angle).sum(), np.sin(angle).sum()]) * (steps[1] - steps[0])
    there, turned = road.place(np.array(37.0), np.array(0.0))
    np.testing.assert_allclose(there, walked, atol=1e-7)
    assert turned == pytest.approx(0.7 + curvature * 37)
    # Beside it: along the normal.
    middle, _ = road.place(along, np.zeros(29))
    normal = np.stack([-np.sin(heading), np.cos(heading)], -1)
    np.testing.assert_allclose(place - middle, beside[:, None] * normal, atol=1e-9)
    # Seen from a place on it, and back.
    seen = place - there
    cosine, sine = math.cos(turned), math.sin(turned)
    seen = seen @ np.array([[cosine, -sine], [sine, cosine]])
    back = road.around(seen)
    np.testing.assert_allclose(back[0], along - 37, atol=1e-4)
    np.testing.assert_allclose(back[1], beside, atol=1e-4)


def test_objects_do_not_run_into_each_other(drives) -> None:
    """Boxes as polygons: some side of one of two separates them, at each time."""
    for drive in drives:
        ego = Actor(name="car", size=EGO_SIZE, colour=(0, 0, 0), along=0, beside=0, speed=drive.speed, drift=0, yaw=0)
        everybody = Drive(road=drive.road, speed=drive.speed, actors=(ego, *drive.actors))
        for time in np.arange(0, DURATION, 0.5):
            boxes = everybody.boxes(time)
            ground = boxes.corners()[:, :4, :2]
            for i in range(len(ground)):
                for j in np.nonzero(np.linalg.norm(boxes.centres - boxes.centres[i], axis=1) < 13)[0]:
                    assert j == i or _apart(ground[i], ground[j]), (everybody.actors[i], everybody.actors[j], time)


def _apart(first: np.ndarray, second: np.ndarray) -> bool:
    for corners in (first, second):
        for side in (corners[1] - corners[0], corners[2] - corners[1]):
            a, b = first @ side, second @ side
            if a.max() < b.min() or b.max() < a.min():
                return True
    return False


def test_all_classes_appear_and_move_as_they_say(drives) -> None:
    names = [one.name for drive in drives for one in drive.actors]
    assert set(names) == set(SIZES)
    moving = sum(one.speed != 0 or one.drift != 0 for drive in drives for one in drive.actors)
    assert 0.25 < moving / len(names) < 0.75
    attributes = {one.attribute() for drive in drives for one in drive.actors}
    assert {"vehicle.moving", "vehicle.parked", "cycle.with_rider", "pedestrian.moving", ""} <= attributes
    for drive in drives:
        for one, yaw in zip(drive.actors, drive.boxes(1.0).yaws, strict=True):
            if one.attribute() in ("vehicle.moving", "cycle.with_rider", "pedestrian.moving"):
                index = drive.actors.index(one)
                step = drive.boxes(1.01).centres[index] - drive.boxes(0.99).centres[index]
                ahead = step[:2] @ [math.cos(yaw), math.sin(yaw)] / np.linalg.norm(step[:2])
                assert ahead > 0.98


def test_fronts_differ_from_rears_and_sides_mirror() -> None:
    for name, palette in PALETTES.items():
        sides = dict(zip(SIDES, paint(name, palette[0]), strict=True))
        assert (sides["left"] == sides["right"][:, ::-1]).all()
        if name not in ("traffic_cone", "barrier"):
            assert (sides["front"] != sides["rear"]).any(-1).mean() > 0.04, name
            assert (sides["front"] != sides["left"]).any(-1).mean() > 0.04, name


def views(drive: Drive) -> list[View]:
    painted, textures = BackdropPaint(np.random.default_rng(0)), textures_of(drive)
    return [View(camera, drive, painted, textures, WIDTH, HEIGHT) for camera in CAMERAS]


def test_objects_are_seen_where_they_project(drives) -> None:
    checked = 0
    for drive in drives[:3]:
        for view in views(drive):
            shot = view.shot(2.0)
            pose, boxes = drive.pose(2.0), drive.boxes(2.0)
            corners = to_camera(boxes.corners(), pose, view.camera)
            centres = to_camera(boxes.centres, pose, view.camera)
            for i in np.nonzero((shot.visible == shot.covered) & (shot.covered > 12))[0]:
                if corners[i, :, 2].min() < 0.2:
                    continue
                pixels = corners[i] @ view.intrinsic.T
                pixels = pixels[:, :2] / pixels[:, 2:]
                low, high = pixels.min(0), pixels.max(0)
                if (low < 1).any() or (high > [WIDTH - 2, HEIGHT - 2]).any():
                    continue
                centre = view.intrinsic @ centres[i] / centres[i, 2]
                assert shot.ids[round(centre[1]), round(centre[0])] == i + 1
                rows, columns = np.nonzero(shot.ids == i + 1)
                assert np.abs(np.array([columns.min(), rows.min()]) - low).max() < 1.5
                assert np.abs(np.array([columns.max(), rows.max()]) - high).max() < 1.5
                checked += 1
    assert checked > 15


def test_a_hidden_object_has_no_pixels() -> None:
    near = Actor(name="truck", size=(6, 3, 3), colour=(1, 2, 3), along=12, beside=0, speed=0, drift=0, yaw=0)
    far = Actor(name="car", size=(4, 1.6, 1.5), colour=(1, 2, 3), along=25, beside=0, speed=0, drift=0, yaw=0)
    road = Road(curvature=0.0, heading=1.1, origin=(500.0, 600.0))
    for actors in ((near, far), (far, near)):
        drive = Drive(road=road, speed=0.0, actors=actors)
        shot = views(drive)[0].shot(0.0)
        hidden, seen = actors.index(far), actors.index(near)
        assert shot.covered[hidden] > 60
        assert shot.visible[hidden] == 0
        assert shot.visible[seen] == shot.covered[seen] > 400
        points, counts = scan(drive.boxes(0.0), drive.pose(0.0))
        assert counts[hidden] == 0
        assert counts[seen] > 50
        assert len(points) > 300


def test_points_lie_in_the_boxes_that_they_count_for(drives) -> None:
    for drive in drives[:3]:
        boxes, pose = drive.boxes(1.5), drive.pose(1.5)
        points, counts = scan(boxes, pose)
        assert counts.sum() > 300
        place = points[:, :3].astype(np.float64) @ LIDAR_ROTATION.T + LIDAR_TRANSLATION
        place = place @ pose.rotation.T + pose.translation
        assert (place[:, 2] > -1e-4).all()
        local = np.einsum("nij,npj->npi", boxes.axes(), place[None] - boxes.centres[:, None])
        inside = (np.abs(local) <= boxes.sizes[:, None] / 2 + 1e-4).all(-1)  # float32
        assert inside.sum(1).tolist() == counts.tolist()


def test_the_ground_is_where_the_road_says() -> None:
    road = Road(curvature=0.012, heading=0.3, origin=(0.0, 0.0))
    painted = BackdropPaint(np.random.default_rng(2))
    camera = Camera(channel="C", translation=(0, 0, 1.5), yaw=90, view=70, delay=0, pitch=20)
    backdrop = Backdrop(camera, road, painted, WIDTH, HEIGHT)
    picture = backdrop.picture(0.0, 0.3).astype(int)
    # A line at 1.85 m to the left is white all along; it is seen by a camera that looks to the left.
    for along in (-0.6, 0.0, 0.8):
        x = np.sin(0.012 * along) / 0.012 - 1.85 * np.sin(0.012 * along)
        y = (1 - np.cos(0.012 * along)) / 0.012 + 1.85 * np.cos(0.012 * along)
        point = (np.array([x, y, 0]) - camera.translation) @ camera.rotation()
        u, v, _ = camera.intrinsic(WIDTH, HEIGHT) @ point / point[2]
        assert picture[round(v), round(u)].min() > 190
    # One period further on, all is as before; half a dash on, it is not.
    assert (backdrop.picture(24.0, 0.3) == picture).mean() > 0.999
    assert (backdrop.picture(3.0, 0.3) != picture).mean() > 0.05


def test_calibration_is_a_rotation_and_scales_with_the_size() -> None:
    for camera in CAMERAS:
        rotation = camera.rotation()
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        view = rotation[:, 2]
        assert math.degrees(math.atan2(view[1], view[0])) % 360 == pytest.approx(camera.yaw % 360)
        assert rotation[2, 1] < -0.99  # down in the picture is down
        full, small = camera.intrinsic(1600, 900), camera.intrinsic(400, 225)
        assert full[0, 0] == pytest.approx(4 * small[0, 0])
        assert (small[0, 2] + 0.5) * 4 == pytest.approx(full[0, 2] + 0.5)
