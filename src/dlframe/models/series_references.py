"""Classical references for forecasting, fitted once to the training series."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.registry import Count, models
from dlframe.types import CheckpointError, ConfigError, DataSpec, MissingPackageError


@dataclass
class Fit:
    """Linear forecasts of a window.

    Attributes:
        weights: (horizon, window) weights of the values of a window; each row sums to 1.
        deviations: (horizon,) standard deviations of the errors, in units of the series.
        choice: What was chosen, and how.
    """

    weights: np.ndarray
    deviations: np.ndarray
    choice: str


class LinearReference(nn.Module):
    """Base of models whose forecasts are sums of a window's values, with weights that follow from the training series.

    A linear model with known parameters and an unknown start forecasts from each origin by filtering the window alone: the
    same forecasts as of a filter that is run there, without a refit and without a look ahead. A subclass has `fit`, its name,
    and the rows that it needs of a window. Before `fit`, the forecast is the last value.

    Args:
        season: Rows of a season; null for that of the data.
    """

    place: Tensor
    entry: ClassVar[str]
    needs: ClassVar[tuple[int, str]]
    """Rows of a window besides a season, at least; and in words."""

    def __init__(self, spec: DataSpec, *, season: Count | None = None) -> None:
        super().__init__()
        self.window, features = spec.shape
        self.horizon = spec.horizon
        self.season = season or int(spec.fitted.get("season", 1))
        if features > 1:
            name = type(self).__name__
            raise ConfigError(
                f"model: {name} takes the series alone. Received: {features} columns ({', '.join(spec.input.names)}). "
                "Choose from: dlinear, lstm, nbeats, tcn",
                "model",
            )
        more, words = self.needs
        check_window(self.window, self.season + more, words, self.entry)
        self.learned: dict[str, Tensor] = {}
        self.choice = ""
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def get_extra_state(self) -> dict[str, Any]:
        return {"learned": dict(self.learned), "choice": self.choice}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in state["learned"].items()}
        if shapes and shapes != {"weights": (self.horizon, self.window), "deviations": (self.horizon,)}:
            raise CheckpointError(f"the checkpoint is of other windows: must be {self.window} rows. Received: {shapes}")
        self.learned = {name: tensor.clone() for name, tensor in state["learned"].items()}
        self.choice = str(state["choice"])

    @property
    def notes(self) -> list[str]:
        """What was chosen."""
        return [self.choice] if self.choice else []

    @property
    def deviations(self) -> Tensor:
        """(horizon,) standard deviations of the errors, in the series' units; NaN before the fit."""
        return self.learned.get("deviations", torch.full((self.horizon,), torch.nan, dtype=torch.float64))

    def fit_series(self, series: list[np.ndarray]) -> None:
        """Fit to the longest of the training series, each (rows,) in order of time."""
        longest = max(series, key=len).astype(np.float64)
        # The differences have the scale 1: no search depends on the unit or the level.
        unit = float(np.diff(longest).std()) or 1.0
        values = (longest - longest[0]) / unit
        fit = self.fit(values) if np.ptp(values) > 0 else Fit(self._last_value(), np.zeros(self.horizon), "a constant series")
        self.learned = {
            "weights": torch.from_numpy(np.ascontiguousarray(fit.weights)),
            "deviations": torch.from_numpy(fit.deviations * unit),
        }
        several = f"; fitted to the longest of {len(series):,} series" if len(series) > 1 else ""
        self.choice = f"{fit.choice}{several}"

    def _last_value(self) -> np.ndarray:
        return np.repeat(np.eye(1, self.window, self.window - 1), self.horizon, 0)

    def fit(self, values: np.ndarray) -> Fit:
        """Return the forecasts of windows of a series like `values` (rows,)."""
        raise NotImplementedError

    def forward(self, windows: Tensor) -> Tensor:
        """Return future values (batch, horizon) of windows (batch, time), in their units and double precision."""
        windows = windows.double()
        last = windows[:, -1:]
        if not self.learned:
            return last.expand(-1, self.horizon)
        self.learned = {name: tensor.to(windows.device) for name, tensor in self.learned.items()}
        # Sums of products, so that a window has the same forecast in any batch; no level is left that could round.
        return last + ((windows - last).unsqueeze(1) * self.learned["weights"]).sum(2)


@models.register(
    "seasonal_naive",
    networks=(),
    inputs=("series",),
    targets=("value",),
    task="forecasting",
    exempt={
        "varies": "nothing is drawn",
        "gradients": "nothing is trained",
        "overfits": "nothing is learned by heart",
    },
)
class SeasonalNaive(LinearReference):
    """Value of the same part of the last season; the naive forecast without a season.

    Intervals have the root mean square of the seasonal differences of the training series, times the root of the seasons
    ahead.
    """

    entry = "seasonal_naive"
    needs = (0, "a season")

    def fit(self, values: np.ndarray) -> Fit:
        steps = np.arange(self.horizon)
        weights = np.zeros((self.horizon, self.window))
        weights[steps, self.window - self.season + steps % self.season] = 1
        differences = values[self.season :] - values[: -self.season]
        size = np.sqrt(np.square(differences).mean()) if len(differences) else np.nan
        return Fit(weights, size * np.sqrt(1 + steps // self.season), f"seasonal_naive: season of {self.season} rows")


@models.register(
    "ets",
    networks=(),
    inputs=("series",),
    targets=("value",),
    task="forecasting",
    exempt={
        "varies": "nothing is drawn",
        "gradients": "the fit has no gradients of its own",
        "overfits": "a handful of parameters learns nothing by heart",
    },
)
class ETS(LinearReference):
    """Exponential smoothing with additive errors; trend and season, each none or additive, are chosen by AICc.

    Hyndman et al. 2008, "Forecasting with Exponential Smoothing". Smoothing parameters are fitted to the training series by
    statsmodels. The states at the start of a window are those of least squares (De Livera, Hyndman and Snyder 2011), so that
    a window is all that a forecast depends on.
    """

    entry = "ets"
    needs = (2, "a season and two rows")

    def fit(self, values: np.ndarray) -> Fit:
        smoothing = _statsmodels("tsa.statespace.exponential_smoothing").ExponentialSmoothing
        seasons = (False, True) if self.season > 1 and len(values) >= 2 * self.season + 5 else (False,)
        best, best_aicc, tried = None, np.inf, 0
        for trend, seasonal in itertools.product((False, True), seasons):
            states = 1 + trend + seasonal * (self.season - 1)
            count = 1 + trend + seasonal + states + 1
            if len(values) <= count + 1:
                continue
            model = smoothing(
                values, trend=trend, seasonal=self.season if seasonal else None, initialization_method="concentrated"
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a search that ends at a bound, as for a random walk
                found = model.fit(disp=False, maxiter=200)
            tried += 1
            aicc = _aicc(found.llf, count, len(values))
            if best is None or aicc < best_aicc:
                best, best_aicc = (model, found, f"ets: A{'NA'[trend]}{'NA'[seasonal]}"), aicc
        if best is None:
            return Fit(self._last_value(), np.full(self.horizon, np.nan), "ets: too few rows, last value")
        model, found, name = best
        model.update(found.params)
        transition, gain = model["transition", 1:, 1:], model["selection", 1:]
        weights, spread = innovations(model["design"][:, 1:] @ transition, transition, gain, self.window, self.horizon)
        told = ", ".join(
            f"{name.split('_')[1]} {value:.3g}" for name, value in zip(found.param_names, found.params, strict=True)
        )
        return Fit(weights, spread * np.sqrt(found.scale), f"{name} by AICc of {tried} ({told})")


@models.register(
    "arima",
    networks=(),
    inputs=("series",),
    targets=("value",),
    task="forecasting",
    exempt={
        "varies": "nothing is drawn",
        "gradients": "the fit has no gradients of its own",
        "overfits": "a handful of parameters learns nothing by heart",
    },
)
class ARIMA(LinearReference):
    """Seasonal ARIMA without a constant; its orders are chosen by AICc.

    As Hyndman and Khandakar 2008 (Journal of Statistical Software 27(3)), differences by tests: a seasonal one where the season
    is strong (Wang, Smith and Hyndman 2006), others by KPSS tests, and one at least. Then p and q up to 2, and with a season P
    and Q up to 1, are compared, each model fitted to the training series by statsmodels. A window is filtered from a diffuse
    start.
    """

    entry = "arima"
    needs = (5, "a season and five rows")

    def fit(self, values: np.ndarray) -> Fit:
        sarimax = _statsmodels("tsa.statespace.sarimax").SARIMAX
        season = self.season if self.season > 1 and len(values) >= 2 * self.season + 10 else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of p-values beyond a table, and of searches that end early
            seasonal = int(bool(season) and _season_strength(values, season) > STRONG)
            differenced = values[season:] - values[:-season] if seasonal else values
            order = max(_differences(differenced), 1 - seasonal)  # without any, forecasts would depend on the level
            differenced = np.diff(differenced, order)
            parts = ((0, 1), (1, 1)) if seasonal else ((0, 0), (1, 0)) if season else ((0, 0),)
            best, best_aicc, tried = None, np.inf, 0
            for (p, q), (big_p, big_q) in itertools.product(itertools.product(range(3), repeat=2), parts):
                count = p + q + big_p + big_q + 1
                if len(differenced) <= count + 1:
                    continue
                try:
                    parameters, likelihood = _fitted(differenced, (p, 0, q), (big_p, 0, big_q, season))
                except (ValueError, np.linalg.LinAlgError):  # no start of the search is stationary and invertible
                    continue
                tried += 1
                aicc = _aicc(likelihood, count, len(differenced))
                if best is None or aicc < best_aicc:
                    orders = {"order": (p, order, q), "seasonal_order": (big_p, seasonal, big_q, season)}
                    best, best_aicc = (orders, parameters), aicc
            if best is None:
                return Fit(self._last_value(), np.full(self.horizon, np.nan), "arima: too few rows, last value")
            orders, parameters = best
            weights = np.empty((self.horizon, self.window))
            for i, impulse in enumerate(np.eye(self.window)):
                filtered = sarimax(impulse, **orders, use_exact_diffuse=True).filter(parameters)
                forecast = filtered.get_forecast(self.horizon)
                weights[:, i] = forecast.predicted_mean
            deviations = np.sqrt(forecast.var_pred_mean)
        name = f"arima: ({','.join(map(str, orders['order']))})"
        if season:
            name += f"({','.join(map(str, orders['seasonal_order'][:3]))}){season}"
        return Fit(weights, deviations, f"{name} by AICc of {tried}")


STRONG = 0.64
"""Strength of a season from which on it is differenced."""


def check_window(window: int, rows: int, what: str, model: str) -> None:
    """Raise where windows are shorter than what a forecast needs."""
    if window < rows:
        raise ConfigError(
            f"data.window: must be at least {rows}, {what}, for model={model}. Received: {window}. Try: data.window={rows}",
            "data.window",
        )


def _statsmodels(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"statsmodels.{name}")
    except ImportError:
        raise MissingPackageError("model: requires the package statsmodels. Try: python -m pip install statsmodels") from None


def _aicc(likelihood: float, parameters: int, rows: int) -> float:
    """Return Akaike's criterion, corrected for few rows (Hurvich and Tsai 1989)."""
    return -2 * likelihood + 2 * parameters + 2 * parameters * (parameters + 1) / (rows - parameters - 1)


def _fitted(values: np.ndarray, order: tuple[int, ...], seasonal: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Return the parameters of an ARMA model, the variance last, and its log-likelihood."""
    if not any((*order, *seasonal[:3])):
        variance = float(np.square(values).mean())
        return np.array([variance]), -0.5 * len(values) * (np.log(2 * np.pi * variance) + 1)
    innovations_mle = _statsmodels("tsa.arima.estimators.innovations").innovations_mle
    found, details = innovations_mle(values, order=order, seasonal_order=seasonal, demean=False)
    return np.asarray(found.params), -float(details.minimize_results.fun)


def innovations(
    design: np.ndarray, transition: np.ndarray, gain: np.ndarray, window: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (horizon, window) and deviations (horizon,) of forecasts of an innovations state space model.

    y_t = design x_(t-1) + e_t, x_t = transition x_(t-1) + gain e_t. The state before the window is that of least squares, as
    of a flat prior. Deviations are in those of e, and contain the uncertainty of that state.

    Args:
        design: (1, states).
        transition: (states, states).
        gain: (states, 1).
        window: Values that are known.
        horizon: Values that are forecast.
    """
    step = transition - gain @ design
    powers = [np.eye(len(step))]
    for _ in range(window):
        powers.append(step @ powers[-1])
    from_start = np.concatenate([design @ powers[t] for t in range(window)])  # (window, states)
    errors = np.eye(window)
    for t in range(window):
        for s in range(t):
            errors[t, s] = -(design @ powers[t - 1 - s] @ gain)[0, 0]
    start = np.linalg.pinv(from_start) @ errors  # (states, window)
    state = powers[window] @ start + np.concatenate([powers[window - 1 - s] @ gain for s in range(window)], 1)
    unknown = powers[window] @ np.linalg.pinv(from_start)  # error of the last state, by the errors within the window
    weights, variances, ahead, total = [], [], design, 1.0
    for _ in range(horizon):
        weights.append(ahead @ state)
        variances.append(total + np.square(ahead @ unknown).sum())
        total += (ahead @ gain)[0, 0] ** 2
        ahead = ahead @ transition
    return np.concatenate(weights), np.sqrt(variances)


def _season_strength(values: np.ndarray, season: int) -> float:
    """Return 1 - var(remainder) / var(season + remainder) of an STL decomposition; 0 at least."""
    found = _statsmodels("tsa.seasonal").STL(values, period=season).fit()
    whole = float(np.var(found.seasonal + found.resid))
    return max(0.0, 1 - float(np.var(found.resid)) / whole) if whole else 0.0


def _differences(values: np.ndarray) -> int:
    """Return how often a series is differenced until a KPSS test at 5 % takes it for stationary; 2 at most."""
    kpss = _statsmodels("tsa.stattools").kpss
    for order in range(2):
        if np.ptp(values) == 0 or len(values) < 10 or kpss(values, nlags="auto")[1] >= 0.05:
            return order
        values = np.diff(values)
    return 2
