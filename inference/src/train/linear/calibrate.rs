//! From sums to probabilities that mean what they say.

use crate::native::linear::file::Curve;

/// A curve from sums to shares (Platt 1999), fitted by Newton's method; `points` are sums, what was true, and how much each
/// counts. Without both outcomes the sums are taken as they are.
#[must_use]
pub fn curve(points: &[(f32, bool, f32)]) -> Curve {
    let has = |outcome: bool| points.iter().any(|(_, truth, weight)| *truth == outcome && *weight > 0.0);
    if !has(true) || !has(false) {
        return Curve { slope: 1.0, shift: 0.0 };
    }
    let (mut slope, mut shift) = (1.0_f64, 0.0_f64);
    for _ in 0..50 {
        // Slopes and curvatures of the log likelihood.
        let (mut first, mut second, mut a, mut b, mut c) = (0.0, 0.0, 1e-6, 0.0, 1e-6);
        for (sum, truth, weight) in points {
            let (sum, weight) = (f64::from(*sum), f64::from(*weight));
            let share = 1.0 / (1.0 + (-(slope * sum + shift)).exp());
            let (error, spread) = ((share - f64::from(u8::from(*truth))) * weight, share * (1.0 - share) * weight);
            first += error * sum;
            second += error;
            a += spread * sum * sum;
            b += spread * sum;
            c += spread;
        }
        let determinant = a * c - b * b;
        if determinant.abs() < 1e-12 {
            break;
        }
        let (by_slope, by_shift) = ((c * first - b * second) / determinant, (a * second - b * first) / determinant);
        slope = (slope - by_slope).clamp(1e-3, 100.0);
        shift = (shift - by_shift).clamp(-100.0, 100.0);
        if by_slope.abs() + by_shift.abs() < 1e-7 {
            break;
        }
    }
    Curve { slope: slope as f32, shift: shift as f32 }
}

/// The temperature that makes the truth likeliest (Guo et al. 2017), by golden section; `points` are sums and the number of
/// the true one.
#[must_use]
pub fn temperature(points: &[(Vec<f32>, usize)]) -> f32 {
    let loss = |logarithm: f32| {
        let temperature = logarithm.exp();
        let of = |(sums, truth): &(Vec<f32>, usize)| {
            let most = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let all: f32 = sums.iter().map(|sum| ((sum - most) / temperature).exp()).sum();
            f64::from(all.ln() - (sums[*truth] - most) / temperature)
        };
        points.iter().map(of).sum::<f64>()
    };
    let golden = (5_f32.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.02_f32.ln(), 20_f32.ln());
    for _ in 0..40 {
        let span = (high - low) * golden;
        if loss(high - span) < loss(low + span) {
            high = low + span;
        } else {
            low = high - span;
        }
    }
    f32::midpoint(low, high).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::random::Random;

    #[test]
    fn a_curve_is_found_again() {
        let mut random = Random::new(1);
        let points: Vec<(f32, bool, f32)> = (0..20_000)
            .map(|_| {
                let sum = random.share() * 8.0 - 4.0;
                let share = 1.0 / (1.0 + (-(1.5 * sum - 0.7)).exp());
                (sum, random.share() < share, 1.0)
            })
            .collect();
        let curve = curve(&points);
        assert!((curve.slope - 1.5).abs() < 0.1 && (curve.shift + 0.7).abs() < 0.1, "{curve:?}");
    }

    #[test]
    fn sums_without_both_outcomes_are_taken_as_they_are() {
        assert_eq!(curve(&[(1.0, true, 1.0)]), Curve { slope: 1.0, shift: 0.0 });
    }

    #[test]
    fn the_temperature_of_overstated_sums_is_found() {
        let mut random = Random::new(2);
        let points: Vec<(Vec<f32>, usize)> = (0..20_000)
            .map(|_| {
                let sum = random.share() * 4.0 - 2.0;
                let share = 1.0 / (1.0 + (-sum).exp());
                (vec![sum * 3.0, 0.0], usize::from(random.share() >= share))
            })
            .collect();
        let found = temperature(&points);
        assert!((found - 3.0).abs() < 0.15, "{found}");
    }
}
