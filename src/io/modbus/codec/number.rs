//! Exact numbers: what a meter shows is never rounded before its floor is taken.

use std::fmt::LowerExp;

/// A fraction of 128-bit integers. Every operation that would overflow gives `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    numerator: i128,
    /// Always positive.
    denominator: i128,
}

/// Decimal exponents beyond this are far outside of any meter's range; the smaller ones are zero.
const MAX_DECIMAL_EXPONENT: i32 = 24;

impl Number {
    /// The shortest decimal that reads back as this float; `None` for NaN and infinities.
    pub(crate) fn from_shortest(float: impl LowerExp) -> Option<Number> {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e')?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let exponent = exponent.parse::<i32>().ok()? - i32::try_from(fraction.len()).ok()?;
        if mantissa == 0 || exponent < -MAX_DECIMAL_EXPONENT {
            return Some(Number::from(0_i64));
        }
        Number::from(mantissa).times_power_of_ten(exponent)
    }

    /// `self × factor`.
    pub(crate) fn times(self, factor: i128) -> Option<Number> {
        let numerator = self.numerator.checked_mul(factor)?;
        Some(Number { numerator, ..self })
    }

    /// `self + other`.
    pub(crate) fn plus(self, other: Number) -> Option<Number> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        let denominator = self.denominator.checked_mul(other.denominator)?;
        Some(Number { numerator: left.checked_add(right)?, denominator })
    }

    /// `self / divisor`; `None` for zero.
    pub(crate) fn divided_by(self, divisor: i128) -> Option<Number> {
        let sign = divisor.signum();
        if sign == 0 {
            return None;
        }
        let denominator = self.denominator.checked_mul(divisor.checked_abs()?)?;
        Some(Number { numerator: self.numerator.checked_mul(sign)?, denominator })
    }

    /// `self × 10^exponent`.
    pub(crate) fn times_power_of_ten(self, exponent: i32) -> Option<Number> {
        if exponent.abs() > MAX_DECIMAL_EXPONENT {
            return None;
        }
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        if exponent < 0 { self.divided_by(power) } else { self.times(power) }
    }

    /// The largest integer that is not above.
    pub(crate) fn floor(self) -> i128 {
        self.numerator.div_euclid(self.denominator)
    }

    /// Whether it is zero.
    pub(crate) fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// The nearest float; for writing set-points only, never for energy.
    pub(crate) fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl From<i128> for Number {
    fn from(numerator: i128) -> Number {
        Number { numerator, denominator: 1 }
    }
}

impl From<i64> for Number {
    fn from(numerator: i64) -> Number {
        Number::from(i128::from(numerator))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        let left = self.numerator.checked_mul(other.denominator);
        let right = other.numerator.checked_mul(self.denominator);
        left.is_some() && left == right
    }
}
